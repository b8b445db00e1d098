"""Opens the safetensors files of a checkpoint; neither files nor index are trusted."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from mmunlearner_jax.errors import InputError, listed, refusing, shown
from mmunlearner_jax.files import read_json
from mmunlearner_jax.models import fields

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_AGAIN = "download it again"
_POINTER = b"version https://git-lfs"

# Files that a folder may hold instead of a checkpoint, and how to make a checkpoint of them.
_HELD = {
    "adapter_config.json": "these are adapters: merge them into their model (peft) and save that",
    "pytorch_model.bin": "save it again as safetensors, by transformers",
    "pytorch_model.bin.index.json": "save it again as safetensors, by transformers",
}


class Tensor:
    """A tensor in an open file; indexing reads a part of it.

    Attributes:
        shape: Shape of the tensor.
        dtype: Name of its dtype in safetensors, e.g. `BF16`.
    """

    def __init__(self, file: Path, slices: Any):
        self._file, self._slices = file, slices
        self.shape = tuple(slices.get_shape())
        self.dtype = str(slices.get_dtype())

    def __getitem__(self, index: Any) -> np.ndarray:
        with refusing(self._file, f"it is damaged: {_AGAIN}"):
            return self._slices[index]


def made_of(directory: Path) -> str:
    """Returns how the user can make a folder a checkpoint, for error messages."""
    return next((m for file, m in _HELD.items() if (directory / file).exists()), _AGAIN)


def open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, Tensor]:
    """Opens every tensor of a checkpoint without reading it.

    Args:
        directory: Folder with `model.safetensors`, or with shards and their index.
        stack: Stack that closes the files.

    Returns:
        The tensors, by their names in the files.

    Raises:
        InputError: A file is missing, damaged or not a regular file, or the index does not match
            the shards.
    """
    index = directory / INDEX
    if os.path.lexists(directory / WEIGHTS):  # like transformers, which then ignores the index
        return _open_file(directory / WEIGHTS, stack)
    if not os.path.lexists(index):
        raise InputError(f"{directory}: has neither {WEIGHTS} nor {INDEX}; {made_of(directory)}")
    tensors = {}
    for file, names in _read_index(index).items():
        if not os.path.lexists(directory / file):
            raise InputError(f"{index}: the file {shown(file)} is missing; {_AGAIN}")
        held = _open_file(directory / file, stack)
        if held.keys() != names:
            raise InputError(
                f"{directory / file}: its tensors are not those that {INDEX} lists (missing:"
                f" {listed(sorted(names - held.keys())) or 'none'}; extra:"
                f" {listed(sorted(held.keys() - names)) or 'none'}); {_AGAIN}"
            )
        tensors |= held
    return tensors


def _read_index(path: Path) -> dict[str, set[str]]:
    """Returns the names of the tensors that an index lists for each file."""
    weight_map = read_json(path, mend=_AGAIN).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: weight_map must be an object and not empty; {_AGAIN}")
    names: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        plain = isinstance(file, str) and file not in ("", ".", "..")
        if not plain or set(file) & set("/\\\0"):
            raise InputError(
                f"{path}: weight_map: the file of {shown(tensor)} is {fields.brief(file)}; it must"
                f" be the name of a file in the same folder; {_AGAIN}"
            )
        names.setdefault(file, set()).add(tensor)
    return names


def _open_file(path: Path, stack: contextlib.ExitStack) -> dict[str, Tensor]:
    with refusing(path, f"it is damaged: {_AGAIN}"):
        if not stat.S_ISREG(path.stat().st_mode):  # follows links: the hub's cache holds links
            raise InputError(f"{path}: is not a regular file; {_AGAIN}")
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise InputError(f"{path}: is only a Git LFS pointer; run `git lfs pull`")
        opened = stack.enter_context(safe_open(path, framework="numpy"))
        return {name: Tensor(path, opened.get_slice(name)) for name in opened.keys()}
