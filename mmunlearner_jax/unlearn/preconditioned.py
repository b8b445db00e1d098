"""Ascent that spares what is kept: divided by importances, and orthogonal to retain gradients.

Adam divides the gradient by its own size, so a weight that matters much for what is kept moves as
far as one that does not. Here the gradient is divided by the square root of the preserve set's
squared gradients. Then its part along the last retain gradients is taken out, so that to first
order the retain loss stays. This is done in each top-level module (vision tower, projector,
decoder) by itself.

A retain step records its gradient in a ring, which is part of the optimizer state that both kinds
of step share. A forget step reads it, and leaves Adam's moments as they are.

Axes: K recorded gradients.
"""

from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Tree = Any
_RIDGE = 1e-6  # recorded gradients may be dependent; they have length 1 here
_TINY = 1e-30  # keeps a length from being 0


class RingState(NamedTuple):
    """State of `recorded` and of `preconditioned`.

    Attributes:
        inner: State of the retain steps' optimizer.
        ring: The last gradients, the newest first: K trees like the parameters, float32.
    """

    inner: optax.OptState
    ring: tuple[Tree, ...]


def recorded(inner: optax.GradientTransformation, size: int) -> optax.GradientTransformation:
    """Records the last gradients that an optimizer gets.

    Args:
        inner: The optimizer.
        size: Number of gradients that are kept, K.
    """

    def init(params: Tree) -> RingState:
        def nothing() -> Tree:
            return jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)

        return RingState(inner.init(params), tuple(nothing() for _ in range(size)))

    def update(updates: Tree, state: RingState, params: Tree = None) -> tuple[Tree, RingState]:
        newest = jax.tree.map(_like, updates, state.ring[-1])
        updates, held = inner.update(updates, state.inner, params)
        return updates, RingState(held, (newest, *state.ring)[:size])

    return optax.GradientTransformation(init, update)


def preconditioned(
    inner: optax.GradientTransformation, size: int, damping: float
) -> optax.GradientTransformationExtraArgs:
    """Divides gradients by importances and takes out their part along recorded gradients.

    The result is g / (sqrt(P) + damping * mean sqrt(P)) without its part in the span of the
    recorded gradients, all of them within the mask. It is scaled to a root mean square of 1 over
    the mask, so that a learning rate means about what it means to Adam.

    Args:
        inner: The retain steps' optimizer, whose state is kept as it is.
        size: Number of recorded gradients, as in `recorded`.
        damping: Constant in the denominator, relative to the mean of sqrt(P) over the mask.

    Returns:
        A transform whose `update` also takes `mask`, a tree of bool, and `preserve`, the float32
        importances P of what is kept; both are like the parameters.
    """

    def update(
        updates: Tree,
        state: RingState,
        params: Tree = None,
        *,
        mask: Tree,
        preserve: Tree,
        **extra: Any,
    ) -> tuple[Tree, RingState]:
        del params, extra
        roots = jax.tree.map(lambda p, m: jnp.where(m, jnp.sqrt(p), 0.0), preserve, mask)
        count = _total(mask)
        floor = damping * _total(roots) / count
        ascent = jax.tree.map(
            lambda g, root, m: jnp.where(m, g.astype(jnp.float32) / (root + floor), 0.0),
            *(updates, roots, mask),
        )
        ascent = without(ascent, [_within(past, mask) for past in state.ring])
        length = jnp.sqrt(_total(jax.tree.map(jnp.square, ascent)))
        scale = jnp.sqrt(count) / jnp.maximum(length, _TINY)
        return jax.tree.map(lambda a, g: (scale * a).astype(g.dtype), ascent, updates), state

    return optax.GradientTransformationExtraArgs(recorded(inner, size).init, update)


def _like(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns an array as float32, sharded like another, which a compiler would not know."""
    return jnp.where(jnp.ones_like(old, bool), new.astype(jnp.float32), old)


def without(tree: Tree, spanning: list[Tree]) -> Tree:
    """Takes out a tree's part in the span of others, in each top-level module by itself.

    Args:
        tree: A tree of float32 arrays.
        spanning: Trees of the same structure; where one is 0 everywhere, it takes out nothing.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    modules = defaultdict(list)
    for number, (path, _) in enumerate(paths):
        modules[str(path[0]) if path else ""].append(number)
    leaves = [leaf for _, leaf in paths]
    others = [jax.tree.leaves(other) for other in spanning]
    for numbers in modules.values():
        lengths = [jnp.sqrt(sum(jnp.sum(o[n] ** 2) for n in numbers)) for o in others]
        units = [
            [o[n] / jnp.maximum(length, _TINY) for n in numbers]
            for o, length in zip(others, lengths, strict=True)
        ]
        own = [leaves[n] for n in numbers]
        gram = jnp.stack([jnp.stack([_dot(one, other) for other in units]) for one in units])
        along = jnp.stack([_dot(one, own) for one in units])
        weights = jnp.linalg.solve(gram + _RIDGE * jnp.eye(len(units)), along)
        for place, number in enumerate(numbers):
            taken = sum(w * unit[place] for w, unit in zip(weights, units, strict=True))
            leaves[number] = leaves[number] - taken
    return treedef.unflatten(leaves)


def _dot(one: list[jax.Array], other: list[jax.Array]) -> jax.Array:
    return sum((jnp.sum(a * b) for a, b in zip(one, other, strict=True)), jnp.zeros(()))


def _within(tree: Tree, mask: Tree) -> Tree:
    return jax.tree.map(lambda x, m: jnp.where(m, x, 0.0), tree, mask)


def _total(tree: Tree) -> jax.Array:
    """Returns the sum over all arrays of a tree, a float32 scalar."""
    return sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))
