"""A table of tensors: Hugging Face name and orientation <-> our path, read in both directions.

An architecture is one `Table` in a file of its own. Everything that reads or writes weights, masks
or importances in Hugging Face's terms derives from it.
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

KERNEL = (1, 0)  # torch keeps [out, in]
CONV = (1, 2, 3, 0)  # torch keeps [out, in, height, width]
CONV3D = (1, 2, 3, 4, 0)  # and [out, in, time, height, width]

# The head, and what it is a copy of where it is tied.
HEAD, EMBEDDINGS = "lm_head.weight", "model.language_model.embed_tokens.weight"

# What the names of tensors that no model has tell of how they were saved, and what mends it.
_SAVED_OTHERWISE = (
    (r"^(module|_orig_mod|_fsdp_wrapped_module)\.", "save the model that the wrapper holds"),
    (r"\.(lora_|base_layer\.)", "merge the adapters first (merge_and_unload of peft)"),
    (r"\.(qweight|qzeros|weight_scale\w*|absmax|quant_map|SCB)$", "use one that is not quantized"),
)


@dataclass(frozen=True)
class Row:
    """One kind of tensor.

    Attributes:
        name: Its name among `named_parameters()` of transformers; `{layer}` where layers are
            stacked on our side.
        path: Its dotted path in our parameter state.
        axes: Our axis i is axis axes[i] of theirs, the layer axis aside; None: the same.
    """

    name: str
    path: str
    axes: tuple[int, ...] | None = None


def dense(name: str, path: str) -> tuple[Row, ...]:
    """The rows of a linear layer."""
    return (
        Row(f"{name}.weight", f"{path}.kernel", KERNEL),
        Row(f"{name}.bias", f"{path}.bias"),
    )


def norm(name: str, path: str) -> tuple[Row, ...]:
    """The rows of a normalisation."""
    return Row(f"{name}.weight", f"{path}.scale"), Row(f"{name}.bias", f"{path}.bias")


def decoder(name: str, path: str) -> tuple[Row, ...]:
    """The rows of a Llama decoder, all but its head."""
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
        path: Its path in our state.
        names: Their names, one for each layer of a stacked array.
        axes: Our axis i is axis axes[i] of theirs, the layer axis aside.
        stacked: Whether our array has a layer axis.
        shape: Their shape, of each.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    axes: tuple[int, ...]
    stacked: bool
    shape: tuple[int, ...]

    def split(self, array: Any) -> Iterator[tuple[str, Any]]:
        """Our array as named tensors, one after the other."""
        back = tuple(np.argsort(self.axes))
        for layer, name in enumerate(self.names):
            yield name, (array[layer] if self.stacked else array).transpose(back)

    def index(self, index: tuple[slice, ...]) -> tuple[tuple[str, ...], tuple[slice, ...]]:
        """Which tensors, and what part of each, make up a part of our array."""
        names, inner = (self.names[index[0]], index[1:]) if self.stacked else (self.names, index)
        return names, tuple(inner[i] for i in np.argsort(self.axes))


@dataclass(frozen=True)
class Buffer:
    """Tensors that some releases write although `config.json` says what they hold.

    Attributes:
        pattern: Of their `named_parameters()` names.
        value: What they hold, of the model's config.
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
        rows: Every kind of tensor; a row without a parameter (no bias, tied head) is left out.
        read: (pattern, replacement) from names found on disk to `named_parameters()`, the first
            that matches wins; a name that none matches stays as it is.
        written: (prefix, prefix) from `named_parameters()` to the names that we write.
        buffers: Tensors that are compared, and not read.
        groups: (prefix of our dotted path, module group): what importances are joined by (D-37).
    """

    rows: tuple[Row, ...]
    read: tuple[tuple[str, str], ...]
    written: tuple[tuple[str, str], ...]
    buffers: tuple[Buffer, ...]
    groups: tuple[tuple[str, str], ...]

    def labels(self, params: nnx.State) -> tuple[nnx.State, nnx.State]:
        """The name pattern (`{layer}` where stacked) and the module group of every array."""
        names = {row.path: row.name for row in self.rows}
        leaves = nnx.to_flat_state(params)
        paths = [".".join(map(str, path)) for path, _ in leaves]
        group_of = [next(g for prefix, g in self.groups if p.startswith(prefix)) for p in paths]

        def tree(values: Iterable[str]) -> nnx.State:
            pairs = zip(leaves, values, strict=True)
            return nnx.from_flat_state({path: leaf.replace(v) for (path, leaf), v in pairs})

        return tree(names[p] for p in paths), tree(group_of)

    def entries(self, params: nnx.State) -> list[Entry]:
        """The arrays of a parameter state, real or abstract, in the order of the rows."""
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
        """The `named_parameters()` name of a name found on disk."""
        for pattern, replacement in self.read:
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                return renamed
        return name

    def on_disk(self, name: str) -> str:
        """The name that we write for a `named_parameters()` name."""
        for prefix, replacement in self.written:
            if name.startswith(prefix):
                return replacement + name.removeprefix(prefix)
        return name

    def without_buffers(
        self, tensors: Mapping[str, Any], config: Any, where: str
    ) -> dict[str, Any]:
        """Leaves out what `config.json` says already.

        Args:
            tensors: By the names found; of those left out, values are read and compared.
            config: Of the model.
            where: What to name in the error.

        Raises:
            InputError: One of them holds something else.
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
                f"{where}: {listed(wrong)}: not the values that follow from config.json; correct"
                " rope_theta and sizes there, or use a checkpoint of a supported model"
            )
        return kept

    def without_copies(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors of a tied model: one of embeddings and head, where they are the same.

        As transformers does: a head alone stands for both; one that differs is kept.

        Args:
            tensors: By the names found.
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
        """Finds the tensors of a model among those given, and refuses any difference.

        Args:
            tensors: By the names given; only their shapes are looked at.
            params: What is wanted, real or abstract.
            where: What to name in the error.

        Returns:
            The name given, by `named_parameters()` name.

        Raises:
            InputError: Missing, extra, duplicate or misshapen tensors, all of them at once.
        """
        wanted = {name: e.shape for e in self.entries(params) for name in e.names}
        given: dict[str, str] = {}
        extra, duplicate, misshapen = [], [], []
        for name, tensor in tensors.items():
            canonical, shape = self.canonical(name), tuple(tensor.shape)
            if canonical not in wanted:
                extra.append(name)
            elif canonical in given:
                duplicate.append(f"{name} (also {given[canonical]})")
            elif shape != wanted[canonical]:
                should = list(wanted[canonical])
                misshapen.append(f"{name} {list(shape)}, should be {should}")
            given.setdefault(canonical, name)
        problems = {
            "extra": extra,
            "missing": [name for name in wanted if name not in given],
            "misshapen": misshapen,
            "duplicate": duplicate,
        }
        if any(problems.values()):
            said = [f"{kind} {listed(names)}" for kind, names in problems.items() if names]
            mends = [m for p, m in _SAVED_OTHERWISE if any(re.search(p, name) for name in extra)]
            raise InputError(
                f"{where}: the tensors are not those that config.json describes:"
                f" {'; '.join([*said, *mends])}"
            )
        return given

    def named(self, tree: nnx.State) -> Iterator[tuple[str, Any]]:
        """Names and tensors of a state, one after the other, so that no second copy is needed."""
        leaves = dict(nnx.to_flat_state(tree))
        for entry in self.entries(tree):
            yield from entry.split(leaves[entry.path].get_value())

    def gather(self, arrays: Mapping[str, Any], params: nnx.State) -> nnx.State:
        """The inverse of `named`: a state like `params`, but with the dtypes of the arrays.

        Raises:
            InputError: The arrays are not those of the model.
        """
        given = self.match(arrays, params, "from_hf_names")
        leaves = dict(nnx.to_flat_state(params))
        for entry in self.entries(params):
            tensors = [jnp.asarray(arrays[given[n]]).transpose(entry.axes) for n in entry.names]
            value = jnp.stack(tensors) if entry.stacked else tensors[0]
            leaves[entry.path] = leaves[entry.path].replace(value)
        return nnx.from_flat_state(leaves)


_ROWS = 2**13  # compared at a time


def _same(one: Any, other: Any) -> bool:
    """Whether two matrices hold the same numbers, whatever their dtypes."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows = one.shape[0]
    parts = (slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))
    return all(np.array_equal(one[part], other[part]) for part in parts)


def _holds(tensor: Any, value: np.ndarray) -> bool:
    """Whether a tensor holds numbers, as far as its dtype can tell; axes of size 1 do not count."""
    if math.prod(tensor.shape) != value.size:
        return False
    found = np.asarray(tensor[...]).reshape(value.shape)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        return np.array_equal(found, value)
    told = jnp.finfo(found.dtype)
    relative, absolute = max(1e-5, 2 * float(told.eps)), float(told.smallest_subnormal)
    return np.allclose(found.astype(np.float32), value, relative, absolute)
