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

SHARD_BYTES = 10**9  # largest size of a file; the process that writes it holds it in memory

# The mend where a checkpoint that a stage wrote is damaged.
_CHANGED = (
    "restore it or write it again; if you changed it yourself, remove"
    f" {artefacts.LIST} from its folder"
)

# The other files of a checkpoint besides weights and config: tokenizer, processor, generation.
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
    """Finds a checkpoint and reads its `config.json`, but no weights.

    Args:
        path_or_name: As in `from_pretrained`.

    Returns:
        The folder, and the model's config.

    Raises:
        InputError: There is no such checkpoint, or its model is not supported.
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
    with refusing(file, "it could not be written back as JSON; correct it"):
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
        mesh: Mesh from `mmunlearner_jax.sharding.make_mesh`, over which the parameters and the
            examples of a batch are split. Each device reads only its part of a tensor. None: one
            device.
        dtype: Dtype of the parameters; None: as stored.
        compute_dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a key of `models.layers.REMAT`.
        attention: Kernel of the decoder's attention over whole sequences, a key of
            `models.attention.KERNELS`.

    Returns:
        The model; `model.source` is the folder that was read.

    Raises:
        InputError: There is no such checkpoint, its model is not supported, or its tensors do not
            fit; nothing is on a device yet. Or weights are not finite in their dtype.
    """
    with contextlib.ExitStack() as stack:
        directory = _find(path_or_name)
        if artefacts.is_sealed(directory):  # a stage wrote it
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
            raise InputError(f"{stored.directory}: {not_finite(names, stored.on_disk, dtype)}")
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
    """Reads all of a transformers checkpoint except its weights.

    Args:
        path_or_name: As in `from_pretrained`.
        mesh: Mesh that the parameters would be sharded over; None: one device.
        dtype: Dtype of the parameters; None: float32.
        compute_dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, as in `from_pretrained`.
        attention: Kernel of the decoder's attention, as in `from_pretrained`.

    Returns:
        The model, with a `jax.ShapeDtypeStruct` in place of every array.

    Raises:
        InputError: There is no such checkpoint, it is of another model, or its tensors do not fit.
    """
    with contextlib.ExitStack() as stack:
        stored = _open(path_or_name, stack, mesh, dtype, compute_dtype, remat, attention)
        return stored.model(stored.params)


class _Stored(NamedTuple):
    """A checkpoint whose tensors are open but not read.

    Attributes:
        directory: Folder of the checkpoint.
        graphdef: Graph definition of the model.
        params: Shapes, dtypes and shardings of the parameters.
        entries: Entries of the weight table, one for each parameter.
        on_disk: Tensors by their names on disk.
        names: Names on disk by `named_parameters()` names.
        tensors: Tensors by `named_parameters()` names.
    """

    directory: Path
    graphdef: nnx.GraphDef
    params: nnx.State
    entries: list[Entry]
    on_disk: Mapping[str, Any]
    names: Mapping[str, str]
    tensors: Mapping[str, Any]

    def model(self, params: nnx.State) -> VisionLanguageModel:
        """Returns the model with these parameters."""
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
    """Opens the tensors of a checkpoint and refuses those that do not fit.

    `stack` closes the files. The other arguments are those of `from_pretrained`.
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
    on_disk = table.without_buffers(open_tensors(directory, stack), config, where)
    if config.text.tie_word_embeddings:
        on_disk = table.without_copies(on_disk)
        if HEAD in map(table.canonical, on_disk):  # it differs, so it is not tied
            text = dataclasses.replace(config.text, tie_word_embeddings=False)
            config = dataclasses.replace(config, text=text)
    graphdef, params = abstract_model(config, mesh, dtype)
    names = table.match(on_disk, params, where)
    tensors = {name: on_disk[names[name]] for name in names}
    entries = table.entries(params)
    check_dtypes(entries, tensors, dtype, where)
    return _Stored(directory, graphdef, params, entries, on_disk, names, tensors)


def save_pretrained(model: VisionLanguageModel, path: str | Path, *, processor: Any = None) -> None:
    """Writes a checkpoint that transformers loads: all of it, or nothing.

    Args:
        model: The model; its arrays are written in their dtypes.
        path: A folder that does not exist yet, or is empty.
        processor: Processor that is saved beside the weights; None: the tokenizer, processor and
            generation files of `model.source` are copied.

    Raises:
        InputError: The folder is not empty.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is not an empty folder; remove it, or save to another path")
    table = ARCHITECTURES[model.config.model_type].table
    params = nnx.split(model)[1]
    # A process that holds the whole model writes it alone.
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
    """Renames and transposes a tree like the parameters into transformers' terms.

    Args:
        model: A model of the architecture.
        tree: A tree like `nnx.split(model)[1]`, of any dtype: weights, mask or importance.

    Returns:
        Arrays by their `named_parameters()` names, in Hugging Face's shapes and orientation.
    """
    return dict(ARCHITECTURES[model.config.model_type].table.named(tree))


def leaf_labels(model: VisionLanguageModel) -> tuple[nnx.State, nnx.State]:
    """Returns two trees like the parameters: Hugging Face names, and module groups.

    A name holds `{layer}` where the array stacks the layers.
    """
    return ARCHITECTURES[model.config.model_type].table.labels(nnx.split(model)[1])


def weight_names(model_type: str, params: nnx.State) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Returns the Hugging Face names of every array, one for each stacked layer, by its path."""
    return {entry.path: entry.names for entry in ARCHITECTURES[model_type].table.entries(params)}


def in_groups(model_type: str, groups: Collection[str]) -> Callable[[tuple, Any], bool]:
    """Returns a filter for `nnx.split_state` that selects the parameters of module groups."""
    table = ARCHITECTURES[model_type].table
    prefixes = tuple(prefix for prefix, group in table.groups if group in groups)
    return lambda path, _: ".".join(map(str, path)).startswith(prefixes)


def from_hf_names(model: VisionLanguageModel, arrays: Mapping[str, Any]) -> nnx.State:
    """Inverts `to_hf_names`; the names may have every spelling that checkpoints have.

    Raises:
        InputError: The arrays are not those of the model.
    """
    table = ARCHITECTURES[model.config.model_type].table
    tensors = table.without_buffers(arrays, model.config, "from_hf_names")
    if model.config.text.tie_word_embeddings:
        tensors = table.without_copies(tensors)
    return table.gather(tensors, nnx.split(model)[1])


def _find(path_or_name: str | Path) -> Path:
    """Returns the checkpoint's folder; a checkpoint given by its name is downloaded."""
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

    All processes gather each tensor. Each process writes every `writers`-th file, and holds the
    tensors of one file at a time.
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
    tensors = (tensor for _, tensor in table.named(params, to_host))
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
    """Writes `config.json` and the other small files of a checkpoint."""
    config = ARCHITECTURES[model.config.model_type].to_hf(model.config)
    source = Path(model.source) if model.source else None
    if source:
        old = read_json(source / "config.json")
        if "text_config" not in config:  # then its fields are at the top level, and only there
            old |= old.pop("text_config", None) or {}
        config = _merged(old, config)
    dtype = jax.tree.leaves(nnx.split(model)[1])[0].dtype.name
    config |= {"dtype": dtype, "torch_dtype": dtype}  # transformers 5 and 4
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    if processor is not None:
        processor.save_pretrained(directory)
    elif source:
        for file in sorted({f for pattern in _COMPANIONS for f in source.glob(pattern)}):
            if file.is_file() and file.stat().st_size <= MOST_BYTES:  # no folder and no pipe
                shutil.copy(file, directory)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the new config with the fields that only the old one has.

    Old dtypes are dropped, because the caller sets them at the top level. `auto_map` is dropped,
    because the code that it names is not copied.
    """
    kept = {k: v for k, v in old.items() if k not in ("auto_map", "dtype", "torch_dtype")}
    return kept | {
        k: _merged(old.get(k) or {}, v) if isinstance(v, Mapping) else v for k, v in new.items()
    }
