"""Reads and writes complete transformers checkpoints."""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from safetensors.numpy import save_file

from mmunlearner_jax import artefacts
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.files import MOST_BYTES, read_json
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.registry import ARCHITECTURES, LOOKALIKES
from mmunlearner_jax.models.vision_language import (
    VisionLanguageConfig,
    VisionLanguageModel,
    abstract_model,
)
from mmunlearner_jax.processes import is_first, to_host, wait
from mmunlearner_jax.weights.reading import Reader, check_dtypes, not_finite
from mmunlearner_jax.weights.table import HEAD, Entry, Table
from mmunlearner_jax.weights.tensors import INDEX, WEIGHTS, made_of, open_tensors

SHARD_BYTES = 10**9  # of a file, which its writer holds whole

# What to do where a checkpoint that a stage wrote is damaged.
_CHANGED = (
    "restore it or make it anew; if you changed it yourself, remove"
    f" {artefacts.LIST} from its folder"
)

# What of a checkpoint is neither weights nor config: tokenizer, processor, generation.
_COMPANIONS = (
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "*processor_config.json",
    "special_tokens_map.json",
    "tokenizer*.json",
    "tokenizer.model",
    "vocab.json",
)


def read_config(path_or_name: str | Path) -> tuple[Path, VisionLanguageConfig]:
    """Finds a checkpoint and reads its `config.json`, no weights.

    Args:
        path_or_name: As in `from_pretrained`.

    Returns:
        The folder, and the model's config.

    Raises:
        InputError: No such checkpoint, or another model.
    """
    directory = _find(path_or_name)
    file = directory / "config.json"
    hf = read_json(file, mend=made_of(directory))
    kind = hf.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        why = f" ({LOOKALIKES[kind]})" if isinstance(kind, str) and kind in LOOKALIKES else ""
        raise InputError(
            f"{file}: model_type={fields.brief(kind)} is not supported{why}; use a checkpoint of"
            f" {', '.join(ARCHITECTURES)}"
        )
    with refusing(file, "it could not be written again; correct it"):
        json.dumps(hf, allow_nan=False)
    try:
        return directory, ARCHITECTURES[kind].read_config(hf)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def from_pretrained(
    path_or_name: str | Path,
    mesh: Mesh | None = None,
    dtype: Any = None,
    *,
    compute_dtype: Any = None,
    remat: str = "none",
    attention: str = "xla",
) -> VisionLanguageModel:
    """Reads a transformers checkpoint.

    Args:
        path_or_name: A folder with `config.json` and safetensors, or a Hugging Face name.
        mesh: Of `mmunlearner_jax.sharding.make_mesh`; every device reads only its part of each
            tensor, and the examples of a batch are split over it. None: one device.
        dtype: Of the parameters; None: as stored.
        compute_dtype: Of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a name of `models.layers.REMAT`.
        attention: Of the decoder over whole sequences, a name of `models.attention.KERNELS`.

    Returns:
        The model; `model.source` is the folder read.

    Raises:
        InputError: No such checkpoint, another model, or tensors that do not fit: before anything
            is put on a device. Weights that are not finite in their dtype: behind that.
    """
    with contextlib.ExitStack() as stack:
        directory = _find(path_or_name)
        if artefacts.is_sealed(directory):  # what a stage wrote
            stack.enter_context(artefacts.reading(directory, mend=_CHANGED))
        stored = _open(directory, stack, mesh, dtype, compute_dtype, remat, attention)
        leaves, reader = dict(nnx.to_flat_state(stored.params)), stack.enter_context(Reader(dtype))
        for entry in stored.entries:
            leaf = leaves[entry.path]
            leaves[entry.path] = leaf.replace(reader.read(entry, stored.tensors, leaf.get_value()))
        arrays = [leaves[entry.path].get_value() for entry in stored.entries]
        together = not all(array.is_fully_addressable for array in arrays)
        if wrong := reader.not_finite(stored.tensors, together=together):
            names = [stored.names[name] for name in wrong]
            raise InputError(f"{stored.directory}: {not_finite(names, stored.found, dtype)}")
    return stored.model(nnx.from_flat_state(leaves))


def abstract_from_pretrained(
    path_or_name: str | Path,
    mesh: Mesh | None = None,
    dtype: Any = None,
    *,
    compute_dtype: Any = None,
    remat: str = "none",
    attention: str = "xla",
) -> VisionLanguageModel:
    """Reads everything of a transformers checkpoint but its weights.

    Args:
        path_or_name: See `from_pretrained`, as for the other arguments.
        mesh: That the parameters would be sharded over.
        dtype: Of the parameters; None: float32.
        compute_dtype: Of the computation; None: that of the parameters.
        remat: What the backward pass recomputes.
        attention: Of the decoder over whole sequences.

    Returns:
        The model, with a `jax.ShapeDtypeStruct` in place of every array.

    Raises:
        InputError: There is no such checkpoint, it is of another model, or its tensors do not fit.
    """
    with contextlib.ExitStack() as stack:
        stored = _open(path_or_name, stack, mesh, dtype, compute_dtype, remat, attention)
        return stored.model(stored.params)


class _Stored(NamedTuple):
    """A checkpoint whose tensors are known and not read.

    Attributes:
        directory: Its folder.
        graphdef: Of the model.
        params: Shapes, dtypes and shardings of the parameters.
        entries: Rows of the weight table, one for each parameter.
        found: What lies on disk, by the name found.
        names: The name found, by `named_parameters()` name.
        tensors: What lies on disk, by `named_parameters()` name.
    """

    directory: Path
    graphdef: nnx.GraphDef
    params: nnx.State
    entries: list[Entry]
    found: Mapping[str, Any]
    names: Mapping[str, str]
    tensors: Mapping[str, Any]

    def model(self, params: nnx.State) -> VisionLanguageModel:
        """The model with some parameters."""
        model = nnx.merge(self.graphdef, params)
        model.source = str(self.directory)
        return model


def _open(
    path_or_name: str | Path,
    stack: contextlib.ExitStack,
    mesh: Mesh | None,
    dtype: Any,
    compute_dtype: Any,
    remat: str,
    attention: str,
) -> _Stored:
    """Finds the tensors of a checkpoint and refuses those that do not fit; see `from_pretrained`.

    Args:
        path_or_name: Of the checkpoint.
        stack: Closes its files.
        mesh: Of the parameters.
        dtype: Of the parameters.
        compute_dtype: Of the computation.
        remat: What the backward pass recomputes.
        attention: Of the decoder.
    """
    directory, config = read_config(path_or_name)
    table = ARCHITECTURES[config.model_type].table
    config = dataclasses.replace(
        config,
        dtype=None if compute_dtype is None else np.dtype(compute_dtype).name,
        remat=remat,
        attention=attention,
    )
    where = str(directory)
    found = table.without_buffers(open_tensors(directory, stack), config, where)
    if config.text.tie_word_embeddings:
        found = table.without_copies(found)
        if HEAD in map(table.canonical, found):  # one of its own
            text = dataclasses.replace(config.text, tie_word_embeddings=False)
            config = dataclasses.replace(config, text=text)
    graphdef, params = abstract_model(config, mesh, dtype)
    names = table.match(found, params, where)
    tensors = {name: found[names[name]] for name in names}
    entries = table.entries(params)
    check_dtypes(entries, tensors, dtype, where)
    return _Stored(directory, graphdef, params, entries, found, names, tensors)


def save_pretrained(model: VisionLanguageModel, path: str | Path, *, processor: Any = None) -> None:
    """Writes a checkpoint that transformers loads: all of it, or nothing.

    Args:
        model: Its arrays are written as they are, in their dtypes.
        path: A folder that does not exist yet, or is empty.
        processor: Saved beside the weights; None: the tokenizer, processor and generation files of
            `model.source` are copied.

    Raises:
        InputError: The folder holds something.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is not an empty folder; remove it or save somewhere else")
    table = ARCHITECTURES[model.config.model_type].table
    params = nnx.split(model)[1]
    # A model that this process holds whole it writes alone.
    alone = all(x.is_fully_addressable for x in jax.tree.leaves(params))
    first = alone or is_first()
    partial = path.with_name(f".{path.name}.partial")  # a sibling: renaming it moves no data
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        if alone:
            _write_tensors(table, params, partial)
        else:
            wait("the folder is there")
            _write_tensors(table, params, partial, jax.process_index(), jax.process_count())
            wait("all files are written")
        if first:
            _write_companions(model, partial, processor)
            partial.replace(path)
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
    if not alone:
        wait("save_pretrained")


def to_hf_names(model: VisionLanguageModel, tree: nnx.State) -> dict[str, Any]:
    """Renames and turns a tree of the model's structure into transformers' terms.

    Args:
        model: Says which architecture it is.
        tree: Like `nnx.split(model)[1]`, of any dtype: weights, mask, importance.

    Returns:
        Arrays by their `named_parameters()` name, in Hugging Face's shapes and orientation.
    """
    return dict(ARCHITECTURES[model.config.model_type].table.named(tree))


def leaf_labels(model: VisionLanguageModel) -> tuple[nnx.State, nnx.State]:
    """Two trees like the parameters: Hugging Face name (`{layer}` where stacked), module group."""
    return ARCHITECTURES[model.config.model_type].table.labels(nnx.split(model)[1])


def weight_names(model_type: str, params: nnx.State) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Hugging Face names of every array, one for each layer of a stacked one, by its path."""
    return {entry.path: entry.names for entry in ARCHITECTURES[model_type].table.entries(params)}


def in_groups(model_type: str, groups: Collection[str]) -> Callable[[tuple, Any], bool]:
    """A filter for `nnx.split_state`: the parameters of some module groups of `leaf_labels`."""
    table = ARCHITECTURES[model_type].table
    prefixes = tuple(prefix for prefix, group in table.groups if group in groups)
    return lambda path, _: ".".join(map(str, path)).startswith(prefixes)


def from_hf_names(model: VisionLanguageModel, arrays: Mapping[str, Any]) -> nnx.State:
    """The inverse of `to_hf_names`; every spelling of the names found on disk is understood.

    Raises:
        InputError: The arrays are not those of the model.
    """
    table = ARCHITECTURES[model.config.model_type].table
    given = table.without_buffers(arrays, model.config, "from_hf_names")
    if model.config.text.tie_word_embeddings:
        given = table.without_copies(given)
    return table.gather(given, nnx.split(model)[1])


def _find(path_or_name: str | Path) -> Path:
    """The checkpoint's folder, downloaded where it is a name."""
    mend = (
        "it is neither a folder nor a Hugging Face name that can be downloaded: check the spelling"
        " and the connection"
    )
    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    with refusing(path_or_name, mend):
        folder = Path(path_or_name).expanduser()
        if folder.is_dir():
            return folder
        return Path(huggingface_hub.snapshot_download(str(path_or_name), allow_patterns=patterns))


def _write_tensors(
    table: Table, params: nnx.State, directory: Path, writer: int = 0, writers: int = 1
) -> None:
    """Writes the weights as one file, or as shards with an index.

    Every process takes part in gathering each tensor; it keeps those of the files that are its own,
    every `writers`-th, one file at a time.
    """
    leaves = dict(nnx.to_flat_state(params))
    shards, sizes = [[]], [0]
    for entry in table.entries(params):
        size = leaves[entry.path].get_value().nbytes // len(entry.names)
        for name in entry.names:
            if shards[-1] and sizes[-1] + size > SHARD_BYTES:
                shards.append([])
                sizes.append(0)
            shards[-1].append(table.on_disk(name))
            sizes[-1] += size
    files = [WEIGHTS]
    if len(shards) > 1:
        files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    tensors = (to_host(tensor) for _, tensor in table.named(params))
    for number, (file, names) in enumerate(zip(files, shards, strict=True)):
        arrays = {}
        for name, tensor in zip(names, itertools.islice(tensors, len(names)), strict=True):
            if number % writers == writer:
                arrays[name] = np.ascontiguousarray(tensor)
        if arrays:
            save_file(arrays, directory / file, metadata={"format": "pt"})
    if writer == 0 and len(shards) > 1:
        weight_map = {n: file for file, names in zip(files, shards, strict=True) for n in names}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2))


def _write_companions(model: VisionLanguageModel, directory: Path, processor: Any) -> None:
    """Writes config.json, and what else makes a checkpoint complete."""
    config = ARCHITECTURES[model.config.model_type].to_hf(model.config)
    source = Path(model.source) if model.source else None
    if source:
        old = read_json(source / "config.json")
        if "text_config" not in config:  # its part stands at the top, and in one place only
            old |= old.pop("text_config", None) or {}
        config = _merged(old, config)
    dtype = jax.tree.leaves(nnx.split(model)[1])[0].dtype.name
    config |= {"dtype": dtype, "torch_dtype": dtype}  # transformers 5 and 4
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    if processor is not None:
        processor.save_pretrained(directory)
    elif source:
        for file in sorted({f for pattern in _COMPANIONS for f in source.glob(pattern)}):
            if file.is_file() and file.stat().st_size <= MOST_BYTES:  # a folder or pipe is none
                shutil.copy(file, directory)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new config, with what only the old one says; dtypes are said once, at the top.

    `auto_map` names code of the old checkpoint, which is not copied.
    """
    kept = {k: v for k, v in old.items() if k not in ("auto_map", "dtype", "torch_dtype")}
    return kept | {
        k: _merged(old.get(k) or {}, v) if isinstance(v, Mapping) else v for k, v in new.items()
    }
