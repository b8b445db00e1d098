"""Consecutive examples that share something: one for all of them, and back.

Axes: B examples, of which every `count` in a row share something.
"""

from typing import Any

import jax
import jax.numpy as jnp


def firsts(tree: Any, count: int) -> Any:
    """Returns the first of every `count` consecutive examples, arrays [B, ...]."""
    return tree if count == 1 else jax.tree.map(lambda a: a[:, 0], grouped(tree, count))


def repeated(tree: Any, count: int) -> Any:
    """Returns arrays [B, ...] with every example `count` times in a row."""
    return tree if count == 1 else jax.tree.map(lambda a: jnp.repeat(a, count, axis=0), tree)


def grouped(tree: Any, count: int) -> Any:
    """Returns arrays [B, ...] as [B / count, count, ...], or as they are if `count` is 1."""

    def group(a: jax.Array) -> jax.Array:
        return a.reshape(-1, count, *a.shape[1:])

    return tree if count == 1 else jax.tree.map(group, tree)


def joined(tree: Any, count: int) -> Any:
    """Undoes `grouped`."""
    return tree if count == 1 else jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)
