"""Sums of squared gradients, in float32 whatever the dtype of the gradients (D-05)."""

from typing import Any

import jax
import jax.numpy as jnp


def squared(gradient: jax.Array) -> jax.Array:
    """Returns the squares of a gradient, in float32."""
    return jnp.square(gradient.astype(jnp.float32))


def no_squares(values: Any) -> Any:
    """Returns sums of squares before the first example: zeros, float32."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), values)


def add_squares(squares: Any, gradients: Any) -> Any:
    """Returns float32 sums plus the squares of an example's gradient."""
    return jax.tree.map(lambda s, g: s + squared(g), squares, gradients)


def total(squares: jax.Array) -> jax.Array:
    """Returns the sum over B of float32 [B, ...]."""

    def contract(squares):
        return jnp.tensordot(jnp.ones(len(squares)), squares, 1, precision="highest")

    # On a CPU, XLA's sum over a leading axis is ten times slower than a product with ones.
    return jax.lax.platform_dependent(
        squares, cpu=contract, default=lambda squares: jnp.sum(squares, axis=0)
    )
