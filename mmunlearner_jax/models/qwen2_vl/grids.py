"""Packs pictures of any size into arrays of one shape, and finds them again under `jit`.

All pictures of an example follow each other in its row of patches. The order of the patches is that
of Qwen2-VL's processor: block by block, where a block of merge x merge patches becomes one token.
The grids hold the height and width of every picture. All positions are computed from them in
integers. So a step takes only two arrays, patches and grids, both with the example axis first.

Axes: B examples, I pictures of an example (zeros where unused), P patches of an example, T tokens,
N patches and M pictures of a whole batch, K numbers of one patch.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.errors import InputError


def check(image_tokens: np.ndarray, grids: np.ndarray, merge: int) -> np.ndarray:
    """Refuses pictures that do not match the image tokens.

    Args:
        image_tokens: Whether a token is an image token, bool [B, T]; every contiguous run of them
            stands for one picture.
        grids: Grids (1, patches in height, patches in width) of the pictures, int [M, 3] or
            [B, I, 3].
        merge: Number of patches, in height and in width, that become one token.

    Returns:
        Number of pictures of every row, int [B].

    Raises:
        InputError: A picture and its image tokens do not match; the message names the first.
    """
    used = grids[np.any(grids > 0, axis=-1)]
    for picture, (time, height, width) in enumerate(used.tolist()):
        if time != 1:
            raise InputError(
                f"image_grid_thw: picture {picture} has {time} frames; video is not supported"
            )
        if not height or height % merge or not width or width % merge:
            raise InputError(
                f"image_grid_thw: picture {picture} has {height} x {width} patches, but both must"
                f" be multiples of {merge}; use the checkpoint's own processor"
            )
    edges = np.diff(np.pad(image_tokens.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    lengths = np.nonzero(edges == -1)[1] - starts
    if len(lengths) != len(used):
        raise InputError(
            f"input_ids hold {len(lengths)} runs of image tokens, but there are {len(used)}"
            " pictures; give every picture one run, with another token between two runs"
        )
    own = rows if grids.ndim == 2 else np.nonzero(np.any(grids > 0, axis=-1))[0]
    for picture, need in enumerate(np.prod(used, axis=1) // merge**2):
        if lengths[picture] != need or own[picture] != rows[picture]:
            raise InputError(
                f"input_ids: row {rows[picture]} has {lengths[picture]} image tokens for picture"
                f" {picture}, which needs {need} in row {own[picture]}"
            )
    return np.bincount(rows, minlength=len(image_tokens))


def pack(
    patches: np.ndarray,
    grids: np.ndarray,
    counts: np.ndarray,
    merge: int,
    budgets: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Packs the patches of a batch into one row for each example.

    Args:
        patches: The processor's `pixel_values`, float [N, K].
        grids: The processor's `image_grid_thw`, int [M, 3].
        counts: Number of pictures of every example, int [B].
        merge: Number of patches, in height and in width, that become one token.
        budgets: Values that P may have, see `room`.

    Returns:
        Patches [B, P, K] and grids int32 [B, I, 3], both padded with zeros at the end. I is a power
        of two.

    Raises:
        InputError: Patches and grids do not match, or an example has more patches than the largest
            budget.
    """
    sizes = np.prod(grids, axis=1)
    if sizes.sum() != len(patches):
        raise InputError(
            f"pixel_values: there are {len(patches)} patches, but the grids have {sizes.sum()};"
            " give both as the processor made them"
        )
    row_of = np.repeat(np.arange(len(counts)), counts)
    needed = np.bincount(row_of, sizes, minlength=len(counts)).astype(int)
    length = room(needed, merge, budgets)
    packed = np.zeros((len(counts), length, *patches.shape[1:]), patches.dtype)
    packed[np.arange(length) < needed[:, None]] = patches
    places = np.zeros((len(counts), _power_of_two(int(counts.max())), 3), np.int32)
    places[np.arange(places.shape[1]) < counts[:, None]] = grids
    return packed, places


def room(needed: Sequence[int] | np.ndarray, merge: int, budgets: Sequence[int] = ()) -> int:
    """Returns the number of patches P that rows are padded to.

    Args:
        needed: Number of patches of each row.
        merge: Number of patches, in height and in width, that become one token.
        budgets: Values that P may have, of which the smallest sufficient one is taken; (): merge²
            times a power of two.

    Raises:
        InputError: A row has more patches than the largest budget, or the budget is not a whole
            number of tokens.
    """
    longest, unit = int(max(needed)), merge**2
    if budgets and longest > max(budgets):
        raise InputError(
            f"pixel_values: the pictures of row {np.argmax(needed)} have {longest} patches, above"
            f" the budget of {max(budgets)}; give a larger budget, or set a smaller max_pixels of"
            " the processor"
        )
    fitting = [budget for budget in budgets if budget >= longest]
    length = min(fitting) if fitting else unit * _power_of_two(-(-longest // unit))
    if length % unit:
        raise InputError(
            f"a budget of {length} patches is not a multiple of {unit}, the patches of one token"
        )
    return length


def patch_places(grids: jax.Array, length: int, merge: int) -> tuple[jax.Array, jax.Array]:
    """Returns the picture of every patch, and the patch's place in the picture.

    Args:
        grids: Grids of the pictures, int [B, I, 3].
        length: Number of patches of a row P.
        merge: Number of patches, in height and in width, that become one token.

    Returns:
        Number of the picture within its example, int [B, P], I at padding; and line and column of
        the patch, int [B, P, 2].
    """
    index = jnp.broadcast_to(jnp.arange(length), (len(grids), length))
    picture, offset = locate(index, jnp.prod(grids, axis=-1))
    block, inside = jnp.divmod(offset, merge**2)
    places = line_and_column(block, grids, picture, merge) * merge
    return picture, places + jnp.stack(jnp.divmod(inside, merge), axis=-1)


def rope_index(
    image_tokens: jax.Array, valid: jax.Array, grids: jax.Array, merge: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the positions of M-RoPE.

    The position of a text token increases by one along all three axes. The tokens of a picture span
    a rectangle. The token after a picture continues from the picture's longer side. Source: Wang et
    al. 2024, section 2.1; equal to `get_rope_index` of transformers.

    Args:
        image_tokens: Whether a token is an image token, bool [B, T].
        valid: Whether a token is no padding, bool [B, T]; the positions of padding are 0.
        grids: Grids of the pictures, in the order of their image tokens, int [B, I, 3].
        merge: Number of patches, in height and in width, that become one token.

    Returns:
        Positions in time, height and width, int [B, T, 3]; and the position of the next token, int
        [B].
    """

    def before(x):
        return jnp.cumsum(x, axis=1) - x

    text = valid & ~image_tokens
    picture, offset = locate(before(image_tokens), jnp.prod(grids, axis=-1) // merge**2)
    extents = jnp.max(grids[..., 1:], axis=-1) // merge
    start = before(text) + _starts(extents, picture)
    spanned = jnp.pad(
        line_and_column(offset, grids, picture, merge), ((0, 0), (0, 0), (1, 0))
    )  # the 0 is the time axis
    positions = start[..., None] + spanned * image_tokens[..., None]
    following = jnp.sum(text, axis=1) + jnp.sum(extents, axis=1)
    return positions * valid[..., None], following


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def locate(index: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the picture that holds each index [B, N] (I: none), and the offset within it.

    Args:
        index: Indices into the row, int [B, N].
        sizes: Lengths of the pictures, which follow each other in the row, int [B, I].
    """
    ends = jnp.cumsum(sizes, axis=1)
    picture = jnp.sum(ends[:, None] <= index[..., None], axis=-1)
    return picture, index - _starts(sizes, picture)


def _starts(sizes: jax.Array, picture: jax.Array) -> jax.Array:
    """Returns the sum of the sizes [B, I] before each picture [B, N], as [B, N]."""
    sums = jnp.pad(jnp.cumsum(sizes, axis=1), ((0, 0), (1, 0)))
    return jnp.take_along_axis(sums, picture, axis=1)


def line_and_column(block: jax.Array, grids: jax.Array, picture: jax.Array, merge: int):
    """Returns line and column, int [B, N, 2], of each block [B, N] in its picture [B, N]."""
    return jnp.stack(jnp.divmod(block, sides(grids, picture, merge)[1]), axis=-1)


def sides(grids: jax.Array, picture: jax.Array, merge: int) -> tuple[jax.Array, jax.Array]:
    """Returns height and width in blocks, int [B, N] each, of the picture [B, N]; 1 at padding."""
    blocks = jnp.pad(grids[..., 1:] // merge, ((0, 0), (0, 1), (0, 0)))
    own = jnp.take_along_axis(blocks, picture[..., None], axis=1)
    height, width = jnp.unstack(jnp.maximum(own, 1), axis=-1)
    return height, width
