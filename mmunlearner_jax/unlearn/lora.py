"""Unlearning with low-rank adapters: the base is frozen, the adapters are all that moves.

They are parameters of the adapted model, so that steps, optimizers and checkpoints treat them like
any others. Where there is a saliency mask it is part of the model, too: the weights computed with
are `W + mask * (scale * B A)`. Both kinds of steps then go through it. Ascent and descent move the
same masked update, while with full weights descent moves all weights; and protected weights are
bit-identical after the whole run, not only after its forget steps.
Source: Hu et al. 2021; the mask under LoRA is ours, the published one touches nothing (D-01).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.layers import Linear
from mmunlearner_jax.models.low_rank import LoRA
from mmunlearner_jax.sharding import param_shardings

Path = tuple[Any, ...]
TARGETS = "config.unlearn.lora.targets"


def linears(graphdef: nnx.GraphDef, params: nnx.State) -> dict[Path, Linear]:
    """The linear layers of a model by path, stacked ones once; parameters may be abstract."""
    return _linears(nnx.merge(graphdef, params))


def _linears(model: nnx.Module) -> dict[Path, Linear]:
    return {path: m for path, m in nnx.iter_modules(model) if isinstance(m, Linear)}


def choose(patterns: Sequence[str], names: Mapping[Path, Sequence[str]]) -> tuple[Path, ...]:
    """The linear layers that get adapters: of each name the first pattern that matches decides.

    Args:
        patterns: Regular expressions, searched in the names; one that begins with `!` says no.
            A name that none matches gets no adapter.
        names: Hugging Face names of the weights that may be chosen, by the path of their layer;
            stacked layers have several.

    Raises:
        InputError: A pattern is no regular expression, decides nothing, or tells layers apart that
            are stacked; or nothing is chosen.
    """
    decided = set()

    def wanted(name: str) -> bool:
        for pattern in patterns:
            if re.search(pattern.removeprefix("!"), name):
                decided.add(pattern)
                return not pattern.startswith("!")
        return False

    chosen = []
    try:
        for path, given in names.items():
            answers = {wanted(name) for name in given}
            if len(answers) > 1:
                raise InputError(
                    f"{TARGETS} tells {given[0]} from {given[-1]} or layers between them: they are"
                    " stacked, give patterns that match all or none"
                )
            if answers == {True}:
                chosen.append(path)
    except re.error as error:
        raise InputError(
            f"{TARGETS} holds {error.pattern!r}: no regular expression ({error})"
        ) from None
    if idle := [pattern for pattern in patterns if pattern not in decided]:
        example = next(iter(names.values()))[0]
        raise InputError(
            f"{TARGETS} holds {idle[0]!r}, which decides nothing: no weight of a linear layer that"
            f" moves matches it, or an earlier pattern does; a name is {example}"
        )
    if not chosen:
        raise InputError(
            f"{TARGETS} chooses no weight: give a pattern that does not begin with '!'"
        )
    return tuple(chosen)


def attach(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    targets: Collection[Path],
    *,
    rank: int,
    alpha: float,
    mask: nnx.State | None = None,
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Gives linear layers adapters.

    Args:
        graphdef: Of the model.
        params: Of the model, real or abstract; they are not copied.
        targets: Paths of the layers, of `choose`.
        rank: Of the adapters.
        alpha: The update is scaled by alpha / rank.
        mask: Bool, like `params`: what of the update there is; None: all.

    Returns:
        The adapted model's graph definition; the adapters, abstract, sharded like the sides of
        their kernels (see `initial`); and all that does not move, the masks of the kernels with it.
    """
    model = nnx.merge(graphdef, params)
    masks = {} if mask is None else dict(nnx.to_flat_state(mask))
    for path, layer in _linears(model).items():
        if path not in targets:
            continue
        kernel, kept = layer.kernel, masks.get((*path, "kernel"))
        *lead, size_in, size_out = kernel.get_value().shape
        axis_in, axis_out = kernel.get_metadata().get("logical", (None, None))

        def factor(*shape: int, logical: tuple[str | None, ...]) -> nnx.LoRAParam:
            return nnx.LoRAParam(jax.ShapeDtypeStruct(shape, jnp.float32), logical=logical)

        layer.lora = LoRA(
            factor(*lead, rank, size_in, logical=("rank", axis_in)),
            factor(*lead, size_out, rank, logical=(axis_out, "rank")),
            None if kept is None else nnx.Variable(kept.get_value()),
            alpha / rank,
        )
    graphdef, adapters, frozen = nnx.split(model, nnx.LoRAParam, ...)
    home = jax.tree.leaves(params)[0].sharding
    if isinstance(home, NamedSharding):
        mesh: Any = home.mesh
        homes = param_shardings(adapters, mesh)
    else:
        homes = jax.tree.map(lambda _: home, adapters)
    adapters = jax.tree.map(
        lambda x, home: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=home), adapters, homes
    )
    return graphdef, adapters, frozen


def initial(adapters: nnx.State, seed: int) -> nnx.State:
    """Adapters that change nothing yet: A is normal, of deviation 1 / rank as PEFT's, and B is 0.

    Args:
        adapters: Abstract, of `attach`.
        seed: Of A.
    """

    def make() -> nnx.State:
        leaves = []
        for number, (path, leaf) in enumerate(nnx.to_flat_state(adapters)):
            shape = leaf.get_value().shape
            if path[-1] == "lora_a":
                key = jax.random.fold_in(jax.random.key(seed), number)
                value = jax.random.normal(key, shape) / shape[-2]
            else:
                value = jnp.zeros(shape)
            leaves.append((path, leaf.replace(value)))
        return nnx.from_flat_state(leaves)

    homes = jax.tree.map(lambda x: x.sharding, adapters)
    return jax.jit(make, out_shardings=homes)()


def merged(graphdef: nnx.GraphDef, adapters: nnx.State, frozen: nnx.State) -> nnx.State:
    """The parameters of the model without adapters that computes the same.

    Args:
        graphdef: Of the adapted model; of one without adapters nothing changes.
        adapters: What moved.
        frozen: The others.
    """
    model = nnx.merge(graphdef, adapters, frozen)
    kernels = {}
    for path, layer in _linears(model).items():
        if layer.lora is not None:
            kernels[*path, "kernel"] = layer.lora.merged(layer.kernel.get_value())
            del layer.lora
    leaves = dict(nnx.to_flat_state(nnx.split(model)[1]))
    # As new variables: the old ones are those of `frozen`.
    leaves |= {path: leaves[path].replace(kernel) for path, kernel in kernels.items()}
    return nnx.from_flat_state(leaves)


def coverage(frozen: nnx.State) -> float:
    """The fraction of the adapted weights that the mask lets move.

    Args:
        frozen: Of `attach`, with a mask.

    Raises:
        InputError: It is 0.
    """
    masks = [
        x.get_value() for path, x in nnx.to_flat_state(frozen) if path[-2:] == ("lora", "mask")
    ]
    ones = sum(float(jnp.sum(mask, dtype=jnp.float32)) for mask in masks)
    if not ones:
        raise InputError(
            f"the mask covers none of the weights that {TARGETS} chooses: choose others, lower"
            " config.mask.threshold or widen config.mask.cover"
        )
    return ones / sum(mask.size for mask in masks)
