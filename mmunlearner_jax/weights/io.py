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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmunlearner_jax import artefacts
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import (
    VisionLanguageConfig,
    VisionLanguageModel,
    abstract_model,
)
from mmunlearner_jax.processes import is_first, to_host, wait
from mmunlearner_jax.weights import llava, qwen2_vl
from mmunlearner_jax.weights.table import Entry, Table


class Architecture(NamedTuple):
    """A model with what it takes to read and write it."""

    config: type[VisionLanguageConfig]
    table: Table


ARCHITECTURES = {
    LlavaConfig.model_type: Architecture(LlavaConfig, llava.TABLE),
    Qwen2VLConfig.model_type: Architecture(Qwen2VLConfig, qwen2_vl.TABLE),
}

# What is missing for models that are easily taken for one of these.
_MISSING = {
    "qwen2_5_vl": "window attention, RMSNorm and a gated feed-forward in the vision tower",
}

SHARD_BYTES = 10**9  # of a file, which its writer holds whole

# What to do where a checkpoint that a stage wrote is damaged.
_CHANGED = (
    "restore it or make it anew; if you changed it yourself, remove"
    f" {artefacts.LIST} from its folder"
)

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

# What of a checkpoint is neither weights nor config: tokenizer, processor, generation.
_COMPANIONS = (
    "added_tokens.json",
    "chat_template*",
    "generation_config.json",
    "merges.txt",
    "*processor_config.json",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab.json",
)


def read_config(path_or_name: str | Path, **options: Any) -> tuple[Path, VisionLanguageConfig]:
    """Finds a checkpoint and reads its `config.json`, no weights.

    Args:
        path_or_name: as in `from_pretrained`.
        **options: fields of the config that say how to compute, and are not in the file.

    Returns:
        The folder, and the model's config.

    Raises:
        InputError: no such checkpoint, or another model.
    """
    directory = _find(path_or_name)
    config_file = directory / "config.json"
    hf = _read_json(config_file)
    found = hf.get("model_type")
    if found not in ARCHITECTURES:
        missing = f" ({_MISSING[found]} is missing)" if found in _MISSING else ""
        raise InputError(
            f"{config_file}: model_type={found!r} is not supported{missing}; use a checkpoint of"
            f" {', '.join(ARCHITECTURES)}"
        )
    try:
        return directory, dataclasses.replace(ARCHITECTURES[found].config.from_hf(hf), **options)
    except InputError as error:
        raise InputError(f"{config_file}: {error}") from None


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
        path_or_name: a folder with `config.json` and safetensors, or a Hugging Face name.
        mesh: of `mmunlearner_jax.sharding.make_mesh`; every device reads only its part of each
            tensor, and the examples of a batch are split over it. None: one device.
        dtype: of the parameters; None: as stored.
        compute_dtype: of the computation; None: that of the parameters.
        remat: what the backward pass recomputes, a name of `models.layers.REMAT`.
        attention: of the decoder over whole sequences, a name of `models.attention.KERNELS`.

    Returns:
        The model; `model.source` is the folder read.

    Raises:
        InputError: no such checkpoint, another model, or tensors that do not fit; before anything
            is put on a device.
    """
    directory, config = read_config(
        path_or_name,
        dtype=None if compute_dtype is None else np.dtype(compute_dtype).name,
        remat=remat,
        attention=attention,
    )
    table = ARCHITECTURES[config.model_type].table
    graphdef, params = abstract_model(config, mesh)
    leaves = dict(nnx.to_flat_state(params))
    with contextlib.ExitStack() as stack:
        if artefacts.is_sealed(directory):  # what a stage wrote
            stack.enter_context(artefacts.reading(directory, mend=_CHANGED))
        tensors = _open(directory, stack)
        shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
        given = table.match(shapes, params, str(directory))
        for entry in table.entries(params):
            parts = {name: tensors[given[name]] for name in entry.names}
            leaf = leaves[entry.path]
            leaves[entry.path] = leaf.replace(_read(entry, parts, leaf.get_value(), dtype))
    model = nnx.merge(graphdef, nnx.from_flat_state(leaves))
    model.source = str(directory)
    return model


def save_pretrained(model: VisionLanguageModel, path: str | Path, *, processor: Any = None) -> None:
    """Writes a checkpoint that transformers loads: all of it, or nothing.

    Args:
        model: its arrays are written as they are, in their dtypes.
        path: a folder that does not exist yet, or is empty.
        processor: saved beside the weights; None: the tokenizer, processor and generation files of
            `model.source` are copied.

    Raises:
        InputError: the folder holds something.
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
        model: says which architecture it is.
        tree: like `nnx.split(model)[1]`, of any dtype: weights, mask, importance.

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
        InputError: the arrays are not those of the model.
    """
    table = ARCHITECTURES[model.config.model_type].table
    return table.gather(arrays, nnx.split(model)[1])


def _find(path_or_name: str | Path) -> Path:
    """The checkpoint's folder, downloaded where it is a name."""
    if Path(path_or_name).expanduser().is_dir():
        return Path(path_or_name).expanduser()
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(huggingface_hub.snapshot_download(str(path_or_name), allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path_or_name}: neither a folder nor a Hugging Face name that can be downloaded"
            f" ({type(error).__name__}); check the spelling and the connection"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}); restore it") from None


def _open(directory: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Every tensor of a checkpoint by the name found, opened but not read."""
    if (directory / _WEIGHTS).exists():
        files = [_WEIGHTS]
    elif (directory / _INDEX).exists():
        index = _read_json(directory / _INDEX)
        files = sorted(set(index.get("weight_map", {}).values()))
    else:
        raise InputError(f"{directory}: holds neither {_WEIGHTS} nor {_INDEX}; convert it")
    tensors = {}
    for file in files:
        try:
            opened = stack.enter_context(safe_open(directory / file, framework="numpy"))
            tensors |= {name: opened.get_slice(name) for name in opened.keys()}
        except FileNotFoundError:
            raise InputError(
                f"{directory / _INDEX}: names {file}, which is missing; download it again"
            ) from None
        except SafetensorError as error:
            raise InputError(
                f"{directory / file}: is damaged ({error}); download it again"
            ) from None
    return tensors


def _read(
    entry: Entry, parts: Mapping[str, Any], like: jax.ShapeDtypeStruct, dtype: Any
) -> jax.Array:
    """One of our arrays; every device's part is cut out of the files by itself."""
    stored = {str(part.get_dtype()) for part in parts.values()}
    if dtype is None and len(stored) > 1:
        raise InputError(
            f"{entry.names[0]} ... {entry.names[-1]}: stored as {' and '.join(sorted(stored))}, but"
            " layers are stacked; give one dtype"
        )

    def read(index: Any) -> np.ndarray:
        names, inner = entry.index(index)
        arrays = [parts[name][inner].transpose(entry.axes) for name in names]
        array = np.stack(arrays) if entry.stacked else arrays[0]
        return array if dtype is None else array.astype(dtype)

    return jax.make_array_from_callback(like.shape, like.sharding, read)


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
    files = [_WEIGHTS]
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
        (directory / _INDEX).write_text(json.dumps(index, indent=2))


def _write_companions(model: VisionLanguageModel, directory: Path, processor: Any) -> None:
    """Writes config.json, and what else makes a checkpoint complete."""
    config = model.config.to_hf()
    source = Path(model.source) if model.source else None
    if source:
        old = _read_json(source / "config.json")
        if "text_config" not in config:  # its part stands at the top, and in one place only
            old |= old.pop("text_config", {})
        config = _merged(old, config)
    dtype = jax.tree.leaves(nnx.split(model)[1])[0].dtype.name
    config |= {"dtype": dtype, "torch_dtype": dtype}  # transformers 5 and 4
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    if processor is not None:
        processor.save_pretrained(directory)
    elif source:
        for file in sorted({f for pattern in _COMPANIONS for f in source.glob(pattern)}):
            shutil.copy(file, directory)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new config, with what only the old one says; dtypes are said once, at the top."""
    kept = {k: v for k, v in old.items() if k not in ("dtype", "torch_dtype")}
    return kept | {
        k: _merged(old.get(k) or {}, v) if isinstance(v, Mapping) else v for k, v in new.items()
    }
