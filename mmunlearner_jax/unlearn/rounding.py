"""Stochastic rounding: bfloat16 weights and moments that lose no small update, in expectation.

bfloat16 has 8 significant bits, so rounding to the nearest drops every update below a 512th of a
weight. Here a sum is rounded up or down at random, with the probabilities that keep its mean: of
1,000 updates of a millionth of a weight, about one weight in eight moves, by a whole 128th.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

Rounding = Literal["nearest", "stochastic"]
_SMALLEST = 2.0**-100  # weights below are rounded to multiples of 2^-107


class RoundingState(NamedTuple):
    """State of `stochastically_rounded`.

    Attributes:
        seed: Seed of all draws, a uint32 scalar.
        count: Number of updates so far, an int32 scalar.
        inner: State of the inner optimizer; its moments are stored in bfloat16.
    """

    seed: jax.Array
    count: jax.Array
    inner: optax.OptState


def rounded_sum(weight: jax.Array, update: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns `weight + update` in bfloat16; its mean over `bits` is the exact sum.

    The sum is never formed in float32, where an update below 2^-24 of the weight would be lost.
    Weight and update are counted in spacings of bfloat16 at the sum; all but the last draw is
    exact. Where the update is 0, the weight is returned bit by bit.

    Args:
        weight: Bfloat16 [...].
        update: Float32 [...].
        bits: Uniform draws, uint32 [...].

    Returns:
        Bfloat16 [...]; NaN where the sum is not finite.

    Source: Croci et al. 2022, "Stochastic rounding: implementation, error analysis and
    applications" (mode 1).
    """
    wide = weight.astype(jnp.float32)
    spacing = _spacing(wide + update)
    (whole, part), (steps, fraction) = map(_apart, (wide / spacing, update / spacing))
    more, chance = _apart(jnp.abs(part + fraction))
    more += bits < (chance * 2.0**32).astype(jnp.uint32)
    total = (whole + steps + jnp.sign(part + fraction) * more) * spacing
    return jnp.where(update == 0, weight, total.astype(jnp.bfloat16))


def _spacing(x: jax.Array) -> jax.Array:
    """Returns the distance between neighbours of bfloat16 at x, a power of two, float32 [...]."""
    exponent = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0x7F800000)
    power = jax.lax.bitcast_convert_type(exponent, jnp.float32)
    return jnp.maximum(power, _SMALLEST) * 2.0**-7


def _apart(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the whole part of x, towards 0, and the rest."""
    whole = jnp.trunc(x)
    return whole, x - whole


def stochastically_rounded(
    inner: optax.GradientTransformation, *, seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """Makes an optimizer lose no small update of bfloat16 weights, in expectation.

    The inner optimizer computes in float32. Its moments are stored in bfloat16, rounded
    stochastically, too: with decays near 1 they change by less than bfloat16 shows. The updates
    that are returned are the differences, float32, to the new weights, so that
    `optax.apply_updates` gives exactly these. It must therefore be the outermost transform.
    Updates that are 0 stay 0, so masked weights keep their bits. Weights that are not bfloat16
    get the inner optimizer's updates.

    Each weight has one draw a step, which depends on the seed, the step, the leaf and its place.
    It does not depend on the devices. Weight and moments share it: each has the right mean.

    Args:
        inner: The optimizer; it may take extra arguments.
        seed: Seed of the draws. It is part of the state, and no constant of a program.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> RoundingState:
        return RoundingState(jnp.uint32(seed), jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: RoundingState, params: Any = None, **extra: Any):
        key = jax.random.fold_in(jax.random.key(state.seed), state.count)
        leaves, treedef = jax.tree.flatten(params)
        draws = treedef.unflatten(
            jax.random.bits(jax.random.fold_in(key, n), leaf.shape) for n, leaf in enumerate(leaves)
        )
        wide, moments = jax.tree.map(_wide, (updates, state.inner))
        updates, moments = inner.update(wide, moments, params, **extra)
        placed = optax.tree.map_params(inner, lambda _, bits: bits, state.inner, draws)
        kept = RoundingState(
            state.seed, state.count + 1, jax.tree.map(_stored, state.inner, moments, placed)
        )
        return jax.tree.map(_difference, params, updates, draws), kept

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def _stored(old: jax.Array, new: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns a new leaf of the state in the dtype of the old one."""
    if new.dtype == old.dtype:
        return new
    return rounded_sum(jnp.zeros_like(old), new, bits)


def _difference(weight: jax.Array, update: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns the update that `optax.apply_updates` turns into the rounded sum."""
    if weight.dtype != jnp.bfloat16:
        return update
    new = rounded_sum(weight, update.astype(jnp.float32), bits)
    moved = new.astype(jnp.float32) - weight.astype(jnp.float32)
    return jnp.where(update == 0, jnp.float32(-0.0), moved)  # adding 0.0 would turn -0.0 into 0.0


def _nearest(inner: optax.GradientTransformation, *, seed: int) -> optax.GradientTransformation:
    del seed
    return inner


# By `rounding` of `config.unlearn`, `config.align` and `config.finetune`.
ROUNDINGS: Mapping[Rounding, Callable[..., Any]] = {
    "nearest": _nearest,
    "stochastic": stochastically_rounded,
}
