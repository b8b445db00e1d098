"""Unlearning with low-rank adapters (LoRA): the base weights are frozen, and only adapters move.

Adapters are parameters of the adapted model, so steps, optimizers and checkpoints treat them like
any other parameters. A saliency mask is part of the adapted model as well: the model computes with
the weights `W + mask * (scale * B A)`. Both forget and retain steps therefore move the same masked
update, whereas with full weights retain steps move all weights. Protected weights are bit-identical
after the whole run, not only after its forget steps.

Source: Hu et al. 2021. The mask under LoRA is this package's own; the published mask touches no
adapter (D-01).
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
    """Returns the linear layers of a model by path; stacked layers are one entry.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model, arrays or `jax.ShapeDtypeStruct`.
    """
    return _linears(nnx.merge(graphdef, params))


def _linears(model: nnx.Module) -> dict[Path, Linear]:
    return {path: m for path, m in nnx.iter_modules(model) if isinstance(m, Linear)}


def choose(patterns: Sequence[str], names: Mapping[Path, Sequence[str]]) -> tuple[Path, ...]:
    """Returns the paths of the linear layers that get adapters.

    The first pattern that matches the name of a layer's weight decides for it.

    Args:
        patterns: Regular expressions, searched in the names. A pattern that begins with `!`
            excludes the names it matches. A name that no pattern matches gets no adapter.
        names: Hugging Face names of the weights that may be chosen, by the path of their layer.
            Stacked layers have several names.

    Raises:
        InputError: A pattern is not a regular expression, decides for no name, or chooses some of
            several stacked layers only; or no layer is chosen.
    """
    decided = set()

    def is_target(name: str) -> bool:
        for pattern in patterns:
            if re.search(pattern.removeprefix("!"), name):
                decided.add(pattern)
                return not pattern.startswith("!")
        return False

    chosen = []
    try:
        for path, stacked in names.items():
            decisions = {is_target(name) for name in stacked}
            if len(decisions) > 1:
                raise InputError(
                    f"{TARGETS} chooses only some of the layers {stacked[0]} to {stacked[-1]}: they"
                    " are stacked, give patterns that match all of them or none"
                )
            if decisions == {True}:
                chosen.append(path)
    except re.error as error:
        raise InputError(
            f"{TARGETS} holds {error.pattern!r}, which is not a regular expression ({error}):"
            " correct the pattern"
        ) from None
    if idle := [pattern for pattern in patterns if pattern not in decided]:
        example = next(iter(names.values()))[0]
        raise InputError(
            f"{TARGETS} holds {idle[0]!r}, which decides nothing: it matches no moving weight of a"
            " linear layer, or an earlier pattern matches first; remove it, or match names like"
            f" {example}"
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
    """Adds adapters to linear layers.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model, arrays or `jax.ShapeDtypeStruct`; they are not copied.
        targets: Paths of the layers, as `choose` returns them.
        rank: Rank of the adapters.
        alpha: Scale of the adapters: their product is multiplied by alpha / rank.
        mask: Bool, with the structure and shapes of `params`: True where the adapters change a
            weight; None: everywhere.

    Returns:
        Three things: the adapted model's graph definition; the adapters, abstract, sharded like the
        input and output axes of their kernels (`initial` makes their values); and the parameters
        that do not move, which include the masks of the kernels.
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
    sharding = jax.tree.leaves(params)[0].sharding
    if isinstance(sharding, NamedSharding):
        mesh: Any = sharding.mesh
        shardings = param_shardings(adapters, mesh)
    else:
        shardings = jax.tree.map(lambda _: sharding, adapters)
    adapters = jax.tree.map(
        lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), adapters, shardings
    )
    return graphdef, adapters, frozen


def initial(adapters: nnx.State, seed: int) -> nnx.State:
    """Returns initial adapters, which do not change the model yet.

    A is drawn from a normal distribution with standard deviation 1 / rank, as in PEFT. B is 0.

    Args:
        adapters: The abstract adapters that `attach` returned.
        seed: Seed of the random values of A.
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

    shardings = jax.tree.map(lambda x: x.sharding, adapters)
    return jax.jit(make, out_shardings=shardings)()


def merged(graphdef: nnx.GraphDef, adapters: nnx.State, frozen: nnx.State) -> nnx.State:
    """Returns the parameters of a model without adapters that computes the same function.

    Args:
        graphdef: Graph definition of the adapted model. The parameters of a model that has no
            adapters are returned unchanged.
        adapters: The parameters that moved.
        frozen: The other parameters.
    """
    model = nnx.merge(graphdef, adapters, frozen)
    kernels = {}
    for path, layer in _linears(model).items():
        if layer.lora is not None:
            kernels[*path, "kernel"] = layer.lora.merged(layer.kernel.get_value())
            del layer.lora
    leaves = dict(nnx.to_flat_state(nnx.split(model)[1]))
    # New variables: the old ones also belong to `frozen`, which must not change.
    leaves |= {path: leaves[path].replace(kernel) for path, kernel in kernels.items()}
    return nnx.from_flat_state(leaves)


def coverage(frozen: nnx.State) -> float:
    """Returns the fraction of the adapted weights that the mask lets move, 0 to 1.

    Args:
        frozen: The frozen parameters that `attach` returned, with masks.

    Raises:
        InputError: The fraction is 0.
    """
    masks = [
        x.get_value() for path, x in nnx.to_flat_state(frozen) if path[-2:] == ("lora", "mask")
    ]
    ones = sum(float(jnp.sum(mask, dtype=jnp.float32)) for mask in masks)
    if not ones:
        raise InputError(
            f"the mask covers none of the weights that {TARGETS} chooses: choose other weights,"
            " lower config.mask.threshold or widen config.mask.cover"
        )
    return ones / sum(mask.size for mask in masks)
