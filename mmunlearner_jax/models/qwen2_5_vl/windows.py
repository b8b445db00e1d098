"""Windows of patches, in the order in which the patches of a window follow each other.

A picture, and every moment of a clip, is cut into squares of tokens from its upper left corner. The
last squares of a line and of a column may be smaller. A window never has more than `side` x `side`
tokens, but pictures of any size make any number of them. So no array has an axis of windows:
patches are put in the order of windows, and cut into chunks as long as the largest window. A window
then lies in at most two neighbouring chunks, and each chunk attends to itself and to its two
neighbours.

Axes: B examples, I pictures of an example (zeros where unused), P patches of an example, F tokens
of an example's pictures, C chunks, S patches of a chunk, N heads, H head size.
"""

import jax
import jax.numpy as jnp

from mmunlearner_jax.models import attention
from mmunlearner_jax.models.qwen2_vl import grids


def window_order(
    thw: jax.Array, length: int, merge: int, side: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Puts tokens in the order of windows.

    Args:
        thw: Grids of the pictures, int [B, I, 3].
        length: Number of tokens of a row F.
        merge: Number of patches, in height and in width, that become one token.
        side: Number of tokens of a window, in height and in width.

    Returns:
        The token at every place in the order of windows, int [B, F]; the place of every token, its
        inverse, int [B, F]; and the window at every place, int [B, F], from 1, with 0 at padding.
        The order is that of `get_vision_window_index` of transformers.
    """
    index = jnp.broadcast_to(jnp.arange(length), (len(thw), length))
    found = grids.find(index, thw, merge)
    top, left = (x - x % side for x in (found.line, found.column))
    # The window begins after all lines above it, and after the windows to its left.
    before = top * found.width + jnp.minimum(side, found.height - top) * left
    start = found.start + before
    inside = (found.line - top) * jnp.minimum(side, found.width - left) + found.column - left
    padding = found.picture == thw.shape[1]
    place = jnp.where(padding, index, start + inside)
    order = jnp.argsort(place, axis=1)
    window = jnp.take_along_axis(jnp.where(padding, 0, start + 1), order, axis=1)
    return order, place, window


def reorder(x: jax.Array, order: jax.Array) -> jax.Array:
    """Puts the tokens of x [B, P, ...] in an order, int [B, F]; a token has P / F patches."""
    tokens = x.reshape(*order.shape, -1)
    return jnp.take_along_axis(tokens, order[..., None], axis=1).reshape(x.shape)


def windowed(q: jax.Array, k: jax.Array, v: jax.Array, windows: jax.Array, size: int) -> jax.Array:
    """Computes attention within windows, whose patches are contiguous.

    Args:
        q: Queries [B, P, N, H].
        k: Keys [B, P, N, H].
        v: Values [B, P, N, H].
        windows: The window of every patch, int [B, P], from 1, with 0 at padding.
        size: Largest number of patches of a window.

    Returns:
        The attended values [B, P, N * H].
    """
    batch, length = windows.shape
    count = -(-length // size)

    def chunks(x):
        """Cuts x [B, P, ...] into [B, C, S, ...], with zeros at the end."""
        x = jnp.pad(x, ((0, 0), (0, count * size - length), *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(batch, count, size, *x.shape[2:])

    def own(x):
        x = chunks(x)
        return x.reshape(-1, *x.shape[2:])

    def around(x):
        """Returns every chunk between its neighbours, [B * C, 3 * S, ...]."""
        x = chunks(x)
        x = jnp.pad(x, ((0, 0), (1, 1), *[(0, 0)] * (x.ndim - 2)))
        x = jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)
        return x.reshape(-1, *x.shape[2:])

    mask = own(windows)[:, :, None] == around(windows)[:, None, :]
    out = attention.masked(own(q), around(k), around(v), mask)
    return out.reshape(batch, count * size, -1)[:, :length]
