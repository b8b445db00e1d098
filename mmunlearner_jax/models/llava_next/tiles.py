"""Tiles of pictures: how many a picture has, and where the features of its image tokens lie.

A picture becomes a base image, and a larger picture that is padded to a pinpoint and cut into
tiles. The tower sees each by itself. The image tokens are the features of the base image, then line
by line those of the larger picture without its padding; a new line's feature ends every line.
A layout holds four numbers of a picture: rows and columns of its tiles, and height and width of the
larger picture without its padding, in features. It is computed on the host in Python's numbers, so
that it is exactly transformers'. What depends on layouts under `jit` is computed in integers.

Axes: B examples, I pictures of an example (zeros where unused), C channels, S pixels of a tile's
edge, R rows and L columns of tiles, F image tokens of an example (padded), N tiles.
Source: Liu et al. 2024 (LLaVA-NeXT); parity with `transformers.LlavaNextModel`.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.models.packing import locate

Pinpoints = Iterable[tuple[int, ...]]


def layout(
    size: tuple[int, int], pinpoints: Pinpoints, edge: int, side: int
) -> tuple[int, int, int, int]:
    """Returns the layout of a picture.

    Args:
        size: Height and width of the picture, in pixels.
        pinpoints: Heights and widths that the larger picture may have, in pixels.
        edge: Height and width of a tile, in pixels.
        side: Height and width of a tile, in features.
    """
    high, wide = size

    def worth(pinpoint):
        height, width = pinpoint
        scale = min(width / wide, height / high)
        kept = min(int(wide * scale) * int(high * scale), wide * high)
        return kept, -height * width

    height, width = max(pinpoints, key=worth)
    rows, columns = height // edge, width // edge
    height, width = rows * side, columns * side
    if wide / high > width / height:
        height = _centred(height, int(round(high * (width / wide), 7)))
    else:
        width = _centred(width, int(round(wide * (height / high), 7)))
    return rows, columns, height, width


def _centred(whole: int, kept: int) -> int:
    """Returns what is left of `whole` when as much is cut at both ends, at least `kept`."""
    return whole - (whole - kept) // 2 * 2


def most_tokens(pinpoints: Pinpoints, edge: int, side: int) -> int:
    """Returns the largest number of image tokens of a picture; see `layout`."""
    grids = [(high // edge * side, wide // edge * side) for high, wide in pinpoints]
    return side**2 + max(high * (wide + 1) for high, wide in grids)


def tokens(layouts: Any, side: int) -> Any:
    """Returns the number of image tokens [...] of pictures with layouts [..., 4]; 0 if unused."""
    rows, _, height, width = (layouts[..., n] for n in range(4))
    return (side**2 + height * (width + 1)) * (rows > 0)


def places(layouts: jax.Array, side: int, slots: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Finds the features of an example's image tokens.

    Args:
        layouts: Layouts of the pictures, int [B, I, 4].
        side: Height and width of a tile, in features.
        slots: Number of tiles that the arrays have for each picture, the base image included.
        length: Number of image tokens F.

    Returns:
        Index of each image token among the features of all tiles, int [B, F], 0 where there is
        none; and whether the token is a new line, bool [B, F].
    """
    index = jnp.broadcast_to(jnp.arange(length), (len(layouts), length))
    picture, offset = locate(index, tokens(layouts, side))
    padded = jnp.pad(layouts, ((0, 0), (0, 1), (0, 0)))
    own = jnp.take_along_axis(padded, picture[..., None], axis=1)
    rows, columns, height, width = jnp.unstack(own, axis=-1)
    line, column = jnp.divmod(offset - side**2, width + 1)
    base, used = offset < side**2, picture < layouts.shape[1]
    new_line = used & ~base & (column == width)
    y = line + (rows * side - height) // 2
    x = column + (columns * side - width) // 2
    tile = 1 + y // side * columns + x // side
    inside = jnp.where(base, offset, tile * side**2 + y % side * side + x % side)
    found = picture * slots * side**2 + inside
    return jnp.where(used & ~new_line, found, 0), new_line


def join(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Joins tiles [R * L, C, S, S] into the picture [C, R * S, L * S] that they were cut from."""
    _, channels, edge, _ = tiles.shape
    apart = tiles.reshape(-1, columns, channels, edge, edge)
    return apart.transpose(2, 0, 3, 1, 4).reshape(channels, -1, columns * edge)


def cut(picture: np.ndarray, edge: int) -> np.ndarray:
    """Cuts a picture [C, R * S, L * S] into tiles [R * L, C, S, S]."""
    channels, height, width = picture.shape
    apart = picture.reshape(channels, height // edge, edge, width // edge, edge)
    return apart.transpose(1, 3, 0, 2, 4).reshape(-1, channels, edge, edge)
