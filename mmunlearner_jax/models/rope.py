"""Rotary positions: pairs of a head's features are rotated by angles that grow with the position.

Axes: B examples, T tokens, N heads, H head size.
Source: Su et al. 2021; along several axes (M-RoPE) Wang et al. 2024 (Qwen2-VL).
"""

import jax
import jax.numpy as jnp
import numpy as np

Rope = tuple[jax.Array, jax.Array]


def frequencies(head_size: int, theta: float) -> np.ndarray:
    """Returns the angle of each pair from one position to the next in radians, float32 [H / 2]."""
    return (theta ** (-np.arange(0, head_size, 2) / head_size)).astype(np.float32)


def rope(
    positions: jax.Array, head_size: int, theta: float, sections: tuple[int, ...] = ()
) -> Rope:
    """Returns the cosines and sines of the rotary angles.

    Args:
        positions: Positions, int [B, T], or with sections [B, T, axes].
        head_size: Number of features of one head H.
        theta: Base of the frequencies.
        sections: Number of the H / 2 frequencies, from the fastest to the slowest, that use each
            axis.

    Returns:
        Cosines and sines, float32 [B, T, 1, H / 2] each.
    """
    if positions.ndim == 2:
        positions = positions[:, :, None]
    else:
        positions = positions[:, :, np.repeat(np.arange(len(sections)), sections)]
    angles = positions[:, :, None] * frequencies(head_size, theta)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rope: Rope) -> jax.Array:
    """Rotates the pairs of features (i, i + H / 2) of x [B, T, N, H], in float32."""
    cos, sin = rope
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
