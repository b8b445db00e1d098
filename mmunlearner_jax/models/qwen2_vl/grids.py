"""Packs pictures of any size into arrays of one shape, and finds them again under `jit`.

All pictures of an example follow each other in its row of patches. The order of the patches is that
of Qwen2-VL's processor: block by block, where a block of merge x merge patches becomes one token.
A clip is a picture with several moments, one after the other; a moment is what one patch spans in
time, and has a height and a width as a picture has. The grids hold the number of moments, the
height and the width of every picture. All places are computed from them in integers. So a step
takes only patches and grids, both with the example axis first, and where time is absolute the
seconds of a moment.

Axes: B examples, I pictures of an example (zeros where unused), P patches of an example, T tokens,
N patches and M pictures of a whole batch, K numbers of one patch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import locate, starts


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
    match("pixel_values", patches, grids)
    sizes = np.prod(grids, axis=1)
    row_of = np.repeat(np.arange(len(counts)), counts)
    needed = np.bincount(row_of, sizes, minlength=len(counts)).astype(jnp.int32)
    length = room(needed, merge, budgets)
    packed = np.zeros((len(counts), length, *patches.shape[1:]), patches.dtype)
    packed[np.arange(length) < needed[:, None]] = patches
    return packed, by_example(grids.astype(np.int32), counts)


def by_example(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Gives what each picture of a batch has, x [M, ...], to its example, with zeros at the end.

    Args:
        x: What the pictures have.
        counts: Number of pictures of every example, int [B].

    Returns:
        An array [B, I, ...]. I is a power of two.
    """
    own = np.zeros((len(counts), _power_of_two(int(counts.max())), *x.shape[1:]), x.dtype)
    own[np.arange(own.shape[1]) < counts[:, None]] = x
    return own


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
            " the processor, or of clips fewer frames"
        )
    fitting = [budget for budget in budgets if budget >= longest]
    length = min(fitting) if fitting else unit * _power_of_two(-(-longest // unit))
    if length % unit:
        raise InputError(
            f"a budget of {length} patches is not a multiple of {unit}, the patches of one token"
        )
    return length


class Places(NamedTuple):
    """Where tokens stand in their pictures, int [B, N] each.

    Attributes:
        picture: Number of the picture within its example; I: none.
        moment: Number of the moment within its clip; 0 in a picture.
        line: Line within the moment, in tokens.
        column: Column within the moment, in tokens.
        height: Height of the picture, in tokens; 1: none.
        width: Width of the picture, in tokens; 1: none.
        start: First token of the moment; the token itself where there is no picture.
    """

    picture: jax.Array
    moment: jax.Array
    line: jax.Array
    column: jax.Array
    height: jax.Array
    width: jax.Array
    start: jax.Array


def find(index: jax.Array, grids: jax.Array, merge: int) -> Places:
    """Finds tokens in their pictures.

    Args:
        index: Numbers of tokens among the image tokens of the row, int [B, N].
        grids: Grids of the pictures, int [B, I, 3].
        merge: Number of patches, in height and in width, that become one token.
    """
    tokens = grids // jnp.array([1, merge, merge])
    picture, offset = locate(index, jnp.prod(tokens, axis=-1))
    sides = jnp.pad(tokens[..., 1:], ((0, 0), (0, 1), (0, 0)))
    own = jnp.take_along_axis(sides, picture[..., None], axis=1)
    height, width = jnp.unstack(jnp.maximum(own, 1), axis=-1)
    moment, inside = jnp.divmod(offset, height * width)
    line, column = jnp.divmod(inside, width)
    return Places(picture, moment, line, column, height, width, index - inside)


def patch_places(grids: jax.Array, length: int, merge: int) -> tuple[jax.Array, jax.Array]:
    """Returns which patches see each other, and where each stands in its picture.

    Args:
        grids: Grids of the pictures, int [B, I, 3].
        length: Number of patches of a row P.
        merge: Number of patches, in height and in width, that become one token.

    Returns:
        Number that the patches of a moment, and of a picture, have in common, int [B, P]; and line
        and column of the patch, int [B, P, 2].
    """
    token, inside = jnp.divmod(jnp.arange(length), merge**2)
    found = find(jnp.broadcast_to(token, (len(grids), length)), grids, merge)
    corner = jnp.stack([found.line, found.column], axis=-1) * merge
    return found.start, corner + jnp.stack(jnp.divmod(inside, merge), axis=-1)


def rope_index(
    image_tokens: jax.Array,
    valid: jax.Array,
    grids: jax.Array,
    merge: int,
    steps: jax.Array | int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Returns the positions of M-RoPE.

    The position of a text token increases by one along all three axes. The tokens of a picture span
    a rectangle, those of a clip a box. The token after it continues from its largest position along
    any axis. Source: Wang et al. 2024, section 2.1. It equals `get_rope_index` of transformers 4;
    that of transformers 5 leaves the time out of "any", so text overlaps a clip that is longer than
    high and wide, and `generate` goes on from other positions than it trains.

    Args:
        image_tokens: Whether a token stands for a picture or clip, bool [B, T].
        valid: Whether a token is no padding, bool [B, T]; the positions of padding are 0.
        grids: Grids of the pictures, in the order of their image tokens, int [B, I, 3].
        merge: Number of patches, in height and in width, that become one token.
        steps: Positions from a moment to the next, int or float32, [B, I] or one for all. The
            positions of moments are rounded down.

    Returns:
        Positions in time, height and width, int [B, T, 3]; and the position of the next token, int
        [B].
    """

    def before(x):
        return jnp.cumsum(x, axis=1) - x

    steps = jnp.broadcast_to(steps, grids.shape[:2])
    text = valid & ~image_tokens
    found = find(before(image_tokens), grids, merge)
    moments, *sides = jnp.unstack(grids, axis=-1)
    last = (jnp.maximum(moments - 1, 0) * steps).astype(jnp.int32)
    extents = jnp.maximum(jnp.minimum(moments, 1) + last, jnp.maximum(*sides) // merge)
    start = before(text) + starts(extents, found.picture)
    own = jnp.take_along_axis(jnp.pad(steps, ((0, 0), (0, 1))), found.picture, axis=1)
    time = (found.moment * own).astype(jnp.int32)
    spanned = jnp.stack([time, found.line, found.column], axis=-1)
    positions = start[..., None] + spanned * image_tokens[..., None]
    following = jnp.sum(text, axis=1) + jnp.sum(extents, axis=1)
    return positions * valid[..., None], following


def match(name: str, patches: np.ndarray, grids: np.ndarray) -> None:
    """Refuses patches [N, K] that are more or fewer than those of the grids [M, 3]."""
    if (size := np.prod(grids, axis=1).sum()) != len(patches):
        raise InputError(
            f"{name}: there are {len(patches)} patches, but the grids have {size};"
            " give both as the processor made them"
        )


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
