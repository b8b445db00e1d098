"""The weight table of an architecture: Hugging Face names and orientations, and our paths.

Each architecture has one `Table`. All code that reads or writes weights, masks or importances in
Hugging Face's terms uses it, in both directions.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmunlearner_jax.errors import InputError, listed
from mmunlearner_jax.models.rope import frequencies

# Values of `Row.axes`.
KERNEL = (1, 0)  # torch: [out, in]
CONV = (1, 2, 3, 0)  # torch: [out, in, height, width]
CONV3D = (1, 2, 3, 4, 0)  # torch: [out, in, time, height, width]

# The output head, and the embeddings that a tied head is a copy of.
HEAD, EMBEDDINGS = "lm_head.weight", "model.language_model.embed_tokens.weight"

# Names of tensors that reveal how a checkpoint was saved, and what the user can do about it.
_SAVED_OTHERWISE = (
    (r"^(module|_orig_mod|_fsdp_wrapped_module)\.", "save the model that the wrapper holds"),
    (r"\.(lora_|base_layer\.)", "merge the adapters first (merge_and_unload of peft)"),
    (r"\.(qweight|qzeros|weight_scale\w*|absmax|quant_map|SCB)$", "use one that is not quantized"),
)


@dataclass(frozen=True)
class Row:
    """One kind of tensor.

    Attributes:
        name: Its name in `named_parameters()` of transformers, with `{layer}` where our array
            stacks the layers.
        path: Dotted path of our array in the parameter state.
        axes: Axis i of our array, without its layer axis, is axis axes[i] of the tensor; None: the
            axes are the same.
    """

    name: str
    path: str
    axes: tuple[int, ...] | None = None


def dense(name: str, path: str) -> tuple[Row, ...]:
    """Returns the rows of a linear layer."""
    return (
        Row(f"{name}.weight", f"{path}.kernel", KERNEL),
        Row(f"{name}.bias", f"{path}.bias"),
    )


def norm(name: str, path: str) -> tuple[Row, ...]:
    """Returns the rows of a normalisation."""
    return Row(f"{name}.weight", f"{path}.scale"), Row(f"{name}.bias", f"{path}.bias")


def decoder(name: str, path: str) -> tuple[Row, ...]:
    """Returns the rows of a Llama decoder without its head."""
    layer, ours = f"{name}.layers.{{layer}}", f"{path}.layers"
    return (
        Row(f"{name}.embed_tokens.weight", f"{path}.embed_tokens.embedding"),
        *norm(f"{layer}.input_layernorm", f"{ours}.input_norm"),
        *dense(f"{layer}.self_attn.q_proj", f"{ours}.q_proj"),
        *dense(f"{layer}.self_attn.k_proj", f"{ours}.k_proj"),
        *dense(f"{layer}.self_attn.v_proj", f"{ours}.v_proj"),
        *dense(f"{layer}.self_attn.o_proj", f"{ours}.o_proj"),
        *norm(f"{layer}.post_attention_layernorm", f"{ours}.post_attention_norm"),
        *dense(f"{layer}.mlp.gate_proj", f"{ours}.gate_proj"),
        *dense(f"{layer}.mlp.up_proj", f"{ours}.up_proj"),
        *dense(f"{layer}.mlp.down_proj", f"{ours}.down_proj"),
        *norm(f"{name}.norm", f"{path}.norm"),
    )


@dataclass(frozen=True)
class Entry:
    """One of our arrays and the tensors that it is made of.

    Attributes:
        path: Path of the array in our parameter state.
        names: Names of the tensors in `named_parameters()`, one for each layer of a stacked array.
        axes: Axis i of our array, without its layer axis, is axis axes[i] of a tensor.
        stacked: Whether our array has a layer axis.
        shape: Shape of each tensor.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    axes: tuple[int, ...]
    stacked: bool
    shape: tuple[int, ...]

    def split(self, array: Any, read: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
        """Yields our array as tensors with their names; each is read before it is transposed."""
        back = tuple(np.argsort(self.axes))
        for layer, name in enumerate(self.names):
            yield name, read(array[layer] if self.stacked else array).transpose(back)

    def index(self, index: tuple[slice, ...]) -> tuple[tuple[str, ...], tuple[slice, ...]]:
        """Returns the names of the tensors, and the part of each, that make up a part of ours."""
        names, inner = (self.names[index[0]], index[1:]) if self.stacked else (self.names, index)
        return names, tuple(inner[i] for i in np.argsort(self.axes))


@dataclass(frozen=True)
class Buffer:
    """Tensors that some releases write although their values follow from `config.json`.

    Attributes:
        pattern: Regular expression that finds their `named_parameters()` names.
        value: Function that computes the values from the model's config.
    """

    pattern: str
    value: Callable[[Any], np.ndarray]


INV_FREQ = Buffer(
    r"\.rotary_emb\.inv_freq$",
    lambda config: frequencies(config.text.head_size, config.text.rope_theta),
)


@dataclass(frozen=True)
class Table:
    """All tensors of an architecture.

    Attributes:
        rows: All kinds of tensors. A row whose parameter does not exist (no bias, tied head) is
            skipped.
        read: Pairs (pattern, replacement) that turn names on disk into `named_parameters()` names.
            The first match counts; a name without a match stays as it is.
        written: Pairs (pattern, replacement) that turn `named_parameters()` names into those that
            we write, as `read`.
        buffers: Tensors that are checked but not read.
        groups: Pairs (prefix of our dotted path, module group) (D-37: in the published code, names
            drift with transformers, and groups that select nothing pass).
    """

    rows: tuple[Row, ...]
    read: tuple[tuple[str, str], ...]
    written: tuple[tuple[str, str], ...]
    buffers: tuple[Buffer, ...]
    groups: tuple[tuple[str, str], ...]

    def labels(self, params: nnx.State) -> tuple[nnx.State, nnx.State]:
        """Returns the `Row.name` of every array, and its module group, as two trees."""
        names = {row.path: row.name for row in self.rows}
        leaves = nnx.to_flat_state(params)
        paths = [".".join(map(str, path)) for path, _ in leaves]
        group_of = [next(g for prefix, g in self.groups if p.startswith(prefix)) for p in paths]

        def tree(values: Iterable[str]) -> nnx.State:
            pairs = zip(leaves, values, strict=True)
            return nnx.from_flat_state({path: leaf.replace(v) for (path, leaf), v in pairs})

        return tree(names[p] for p in paths), tree(group_of)

    def entries(self, params: nnx.State) -> list[Entry]:
        """Returns the arrays of a parameter state, real or abstract, in the order of the rows."""
        shapes = {path: leaf.get_value().shape for path, leaf in nnx.to_flat_state(params)}
        entries = []
        for row in self.rows:
            shape = shapes.pop(tuple(row.path.split(".")), None)
            if shape is None:
                continue
            stacked = "{layer}" in row.name
            layers, inner = (shape[0], shape[1:]) if stacked else (1, shape)
            axes = row.axes or tuple(range(len(inner)))
            entries.append(
                Entry(
                    path=tuple(row.path.split(".")),
                    names=tuple(row.name.format(layer=i) for i in range(layers)),
                    axes=axes,
                    stacked=stacked,
                    shape=tuple(inner[i] for i in np.argsort(axes)),
                )
            )
        assert not shapes, f"no row for {list(shapes)}"
        return entries

    def canonical(self, name: str) -> str:
        """Returns the `named_parameters()` name for a name on disk."""
        return _renamed(name, self.read)

    def on_disk(self, name: str) -> str:
        """Returns the name that we write for a `named_parameters()` name."""
        return _renamed(name, self.written)

    def without_buffers(
        self, tensors: Mapping[str, Any], config: Any, where: str
    ) -> dict[str, Any]:
        """Leaves out the tensors whose values follow from `config.json`.

        Args:
            tensors: Tensors by their names on disk. The values of those left out are checked.
            config: Config of the model.
            where: Prefix of the error message, e.g. the folder.

        Raises:
            InputError: A tensor that is left out has other values.
        """
        kept, wrong = {}, []
        for name, tensor in tensors.items():
            canonical = self.canonical(name)
            buffer = next((b for b in self.buffers if re.search(b.pattern, canonical)), None)
            if buffer is None:
                kept[name] = tensor
            elif not _holds(tensor, buffer.value(config)):
                wrong.append(name)
        if wrong:
            raise InputError(
                f"{where}: {listed(wrong)}: the values do not follow from config.json; correct"
                " rope_theta and sizes there, or use a checkpoint of a supported model"
            )
        return kept

    def without_copies(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Leaves out the head of a tied model where it equals the embeddings.

        As in transformers, a head without embeddings stands for both, and a head that differs from
        the embeddings is kept.

        Args:
            tensors: Tensors by their names on disk.
        """
        names = {self.canonical(name): name for name in tensors}
        head, embeddings = names.get(HEAD), names.get(EMBEDDINGS)
        if head is None:
            return dict(tensors)
        rest = {name: tensor for name, tensor in tensors.items() if name != head}
        if embeddings is None:
            return rest | {EMBEDDINGS: tensors[head]}
        return rest if _same(tensors[head], tensors[embeddings]) else dict(tensors)

    def match(self, tensors: Mapping[str, Any], params: nnx.State, where: str) -> dict[str, str]:
        """Finds the tensor of every parameter, and refuses any difference.

        Args:
            tensors: Tensors by their names on disk; only their shapes are read.
            params: Parameters of the model, real or abstract.
            where: Prefix of the error message, e.g. the folder.

        Returns:
            The names on disk by `named_parameters()` names.

        Raises:
            InputError: Tensors are missing, extra, duplicate or misshapen; the message lists all
                four kinds.
        """
        wanted = {name: e.shape for e in self.entries(params) for name in e.names}
        matches: dict[str, str] = {}
        extra, duplicate, misshapen = [], [], []
        for name, tensor in tensors.items():
            canonical, shape = self.canonical(name), tuple(tensor.shape)
            if canonical not in wanted:
                extra.append(name)
            elif canonical in matches:
                duplicate.append(f"{name} (also {matches[canonical]})")
            elif shape != wanted[canonical]:
                should = list(wanted[canonical])
                misshapen.append(f"{name} {list(shape)}, should be {should}")
            matches.setdefault(canonical, name)
        problems = {
            "extra": extra,
            "missing": [name for name in wanted if name not in matches],
            "misshapen": misshapen,
            "duplicate": duplicate,
        }
        if any(problems.values()):
            kinds = [f"{kind} {listed(names)}" for kind, names in problems.items() if names]
            mends = [m for p, m in _SAVED_OTHERWISE if any(re.search(p, name) for name in extra)]
            raise InputError(
                f"{where}: the tensors are not those that config.json describes:"
                f" {'; '.join([*kinds, *mends])}"
            )
        return matches

    def named(
        self, tree: nnx.State, read: Callable[[Any], Any] = lambda tensor: tensor
    ) -> Iterator[tuple[str, Any]]:
        """Yields the names and tensors of a state one after the other, without a second copy.

        Args:
            tree: A state like the parameters.
            read: Applied to each tensor in our orientation, e.g. `to_host`: then a device has no
                program to transpose it.
        """
        leaves = dict(nnx.to_flat_state(tree))
        for entry in self.entries(tree):
            yield from entry.split(leaves[entry.path].get_value(), read)

    def gather(self, arrays: Mapping[str, Any], params: nnx.State) -> nnx.State:
        """Inverts `named`: returns a state like `params`, but with the dtypes of the arrays.

        Raises:
            InputError: The arrays are not those of the model.
        """
        names = self.match(arrays, params, "from_hf_names")
        leaves = dict(nnx.to_flat_state(params))
        for entry in self.entries(params):
            tensors = [jnp.asarray(arrays[names[n]]).transpose(entry.axes) for n in entry.names]
            value = jnp.stack(tensors) if entry.stacked else tensors[0]
            leaves[entry.path] = leaves[entry.path].replace(value)
        return nnx.from_flat_state(leaves)


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Replaces the first pattern that matches."""
    for pattern, replacement in pairs:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


_ROWS = 2**13  # number of rows that `_same` compares at a time


def _same(one: Any, other: Any) -> bool:
    """Returns whether two matrices hold the same numbers, whatever their dtypes."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows = one.shape[0]
    parts = (slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))
    return all(np.array_equal(one[part], other[part]) for part in parts)


def _holds(tensor: Any, value: np.ndarray) -> bool:
    """Returns whether a tensor equals `value` within its dtype's precision, without unit axes."""
    if math.prod(tensor.shape) != value.size:
        return False
    array = np.asarray(tensor[...]).reshape(value.shape)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return np.array_equal(array, value)
    limits = jnp.finfo(array.dtype)
    relative, absolute = max(1e-5, 2 * float(limits.eps)), float(limits.smallest_subnormal)
    return np.allclose(array.astype(np.float32), value, relative, absolute)
