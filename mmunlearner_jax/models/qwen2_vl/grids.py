"""Pictures of any size in arrays of one shape: packed on the host, taken apart again in `jit`.

All pictures of an example lie one behind the other in its row of patches, in the order of
Qwen2-VL's processor: block by block of merge x merge patches, which become one token. The grids say
where each begins, ends, and how wide it is; everything else follows from them in integer
arithmetic, so that a step is given two arrays, both with the examples first.

Axes: B examples, I pictures of an example (unused ones are zeros), P patches of an example, T
tokens, N patches and M pictures of a whole batch, K numbers of one patch.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.errors import InputError


def check(image_tokens: np.ndarray, grids: np.ndarray, merge: int) -> np.ndarray:
    """Refuses pictures that are not those of the image tokens.

    Args:
        image_tokens: Bool [B, T]; every unbroken run of them stands for one picture.
        grids: Int [M, 3], or [B, I, 3], each (1, patches in height, patches in width).
        merge: How many patches in height and in width become one token.

    Returns:
        Int [B], how many pictures every row has.

    Raises:
        InputError: The first picture that differs.
    """
    used = grids[np.any(grids > 0, axis=-1)]
    for picture, (time, height, width) in enumerate(used.tolist()):
        if time != 1:
            raise InputError(
                f"image_grid_thw: picture {picture} has {time} frames; video is not supported"
            )
        if not height or height % merge or not width or width % merge:
            raise InputError(
                f"image_grid_thw: picture {picture} has {height} x {width} patches, which are no"
                f" multiples of {merge}; use the checkpoint's own processor"
            )
    edges = np.diff(np.pad(image_tokens.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    lengths = np.nonzero(edges == -1)[1] - starts
    if len(lengths) != len(used):
        raise InputError(
            f"input_ids hold {len(lengths)} runs of image tokens, but there are {len(used)}"
            " pictures; give one run for each, with a token between two"
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
    """Gives every example a row of patches, as long as one of few budgets.

    Args:
        patches: Float [N, K], what the processor gives as `pixel_values`.
        grids: Int [M, 3], its `image_grid_thw`.
        counts: Int [B], how many of the M pictures every example has.
        merge: How many patches in height and in width become one token.
        budgets: See `room`.

    Returns:
        Patches [B, P, K], then zeros; grids int32 [B, I, 3], then zeros, I a power of two.

    Raises:
        InputError: Patches and grids do not match, or an example is above the last budget.
    """
    sizes = np.prod(grids, axis=1)
    if sizes.sum() != len(patches):
        raise InputError(
            f"pixel_values: {len(patches)} patches for grids of {sizes.sum()}; give both as the"
            " processor made them"
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
    """How many patches P all rows are given.

    Args:
        needed: How many patches the rows have.
        merge: How many patches in height and in width become one token.
        budgets: Numbers of patches that a row may have: the smallest that is long enough. By
            default merge² times a power of two.

    Raises:
        InputError: The row is above the last budget, or the budget is no number of whole tokens.
    """
    longest, unit = int(max(needed)), merge**2
    if budgets and longest > max(budgets):
        raise InputError(
            f"pixel_values: the pictures of row {np.argmax(needed)} have {longest} patches, above"
            f" the budget of {max(budgets)}; give a larger budget, or the processor fewer"
            " max_pixels"
        )
    fitting = [budget for budget in budgets if budget >= longest]
    found = min(fitting) if fitting else unit * _power_of_two(-(-longest // unit))
    if found % unit:
        raise InputError(
            f"a budget of {found} patches is no multiple of {unit}, those of one token"
        )
    return found


def patch_places(grids: jax.Array, length: int, merge: int) -> tuple[jax.Array, jax.Array]:
    """Where every patch belongs.

    Args:
        grids: Int [B, I, 3].
        length: P.
        merge: How many patches in height and in width become one token.

    Returns:
        Int [B, P], the picture, I for the patches that are none; and int [B, P, 2], its line and
        column in the picture.
    """
    index = jnp.broadcast_to(jnp.arange(length), (len(grids), length))
    picture, offset = _locate(index, jnp.prod(grids, axis=-1))
    block, inside = jnp.divmod(offset, merge**2)
    places = _line_and_column(block, grids, picture, merge) * merge
    return picture, places + jnp.stack(jnp.divmod(inside, merge), axis=-1)


def rope_index(
    image_tokens: jax.Array, valid: jax.Array, grids: jax.Array, merge: int
) -> tuple[jax.Array, jax.Array]:
    """Positions of M-RoPE: text counts on along all three axes, a picture spans a rectangle.

    What follows a picture begins behind its longer side. Source: Wang et al. 2024, section 2.1;
    equal to `get_rope_index` of transformers.

    Args:
        image_tokens: Bool [B, T].
        valid: Bool [B, T], False for padding, whose positions are 0.
        grids: Int [B, I, 3], the pictures of the image tokens, in order.
        merge: How many patches in height and in width become one token.

    Returns:
        Int [B, T, 3], time, height and width; and int [B], the position of what comes next.
    """

    def before(x):
        return jnp.cumsum(x, axis=1) - x

    text = valid & ~image_tokens
    picture, offset = _locate(before(image_tokens), jnp.prod(grids, axis=-1) // merge**2)
    extents = jnp.max(grids[..., 1:], axis=-1) // merge
    start = before(text) + _starts(extents, picture)
    spanned = jnp.pad(
        _line_and_column(offset, grids, picture, merge), ((0, 0), (0, 0), (1, 0))
    )  # a picture has no duration
    positions = start[..., None] + spanned * image_tokens[..., None]
    following = jnp.sum(text, axis=1) + jnp.sum(extents, axis=1)
    return positions * valid[..., None], following


def _power_of_two(number: int) -> int:
    """The smallest that is not below the number."""
    return 1 << max(number - 1, 0).bit_length()


def _locate(index: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which of the pictures of sizes [B, I] number index [B, N] falls in (I: none); how far in."""
    ends = jnp.cumsum(sizes, axis=1)
    picture = jnp.sum(ends[:, None] <= index[..., None], axis=-1)
    return picture, index - _starts(sizes, picture)


def _starts(sizes: jax.Array, picture: jax.Array) -> jax.Array:
    """The sum [B, N] of the sizes [B, I] before a picture [B, N]."""
    sums = jnp.pad(jnp.cumsum(sizes, axis=1), ((0, 0), (1, 0)))
    return jnp.take_along_axis(sums, picture, axis=1)


def _line_and_column(block: jax.Array, grids: jax.Array, picture: jax.Array, merge: int):
    """Int [B, N, 2] of the blocks [B, N] of their pictures [B, N]."""
    # Of no picture, the width is 1.
    widths = jnp.pad(grids[..., 2] // merge, ((0, 0), (0, 1)), constant_values=1)
    width = jnp.maximum(jnp.take_along_axis(widths, picture, axis=1), 1)
    return jnp.stack(jnp.divmod(block, width), axis=-1)
