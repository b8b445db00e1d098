"""Packed rows: several questions about one picture share the row and the picture.

A packed row is a prefix and several segments. The prefix ends with the picture. A segment is the
rest of one question with its answer. A segment's tokens attend to the prefix and to their own
segment, and their positions continue those of the prefix. So each question is computed as if it
stood alone. A row of text has no prefix; its segments are whole questions. The array `segments`
holds the segment of every token: 0 is the prefix, and 1, 2, ... are the segments, each contiguous.

Axes: B rows, T tokens, S supervised tokens of a row (padded), I pictures of a row, N indices.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

IGNORE = -100  # the label of a token that is not supervised


class Sizes(NamedTuple):
    """The largest parts of some packed rows.

    Attributes:
        segments: Most segments of a row.
        prefix: Most tokens of a prefix; 0: the rows are text.
        segment: Most tokens of a segment.
    """

    segments: int
    prefix: int
    segment: int


def visible(valid: jax.Array, segments: jax.Array | None, window: int | None = None) -> jax.Array:
    """Returns which token may attend to which.

    Args:
        valid: Whether a token is no padding, bool [B, T].
        segments: Segment of every token, int [B, T]; None: the rows are not packed.
        window: How many tokens a token attends to, itself included; None: all before it.

    Returns:
        Bool [B, T (queries), T (keys)]. A token may attend to itself and to earlier valid tokens,
        of its own segment or of the prefix. A window counts the tokens of both, and no padding.
    """
    length = valid.shape[1]
    seen = jnp.tril(jnp.ones((length, length), bool)) & valid[:, None, :]
    if segments is not None:
        own, other = segments[:, :, None], segments[:, None, :]
        seen &= (other == 0) | (other == own)
    if window is None or window >= length:
        return seen
    if segments is None:
        places = jnp.cumsum(valid, axis=1)
    else:
        prefix = jnp.sum(valid & (segments == 0), axis=1, keepdims=True)
        places = ranks(valid, segments) + jnp.where(segments == 0, 0, prefix)
    return seen & (places[:, :, None] - places[:, None] < window)


def ranks(valid: jax.Array, segments: jax.Array) -> jax.Array:
    """Returns the number of valid tokens before a token in its own segment, int [B, T]."""
    before = jnp.cumsum(valid, axis=1) - valid
    starts = jnp.diff(segments, axis=1, prepend=-1) != 0
    return before - jax.lax.cummax(jnp.where(starts, before, 0), axis=1)


def locate(index: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the picture that holds each index [B, N] (I: none), and the offset within it.

    Args:
        index: Indices into the row, int [B, N].
        sizes: Lengths of the pictures, which follow each other in the row, int [B, I].
    """
    ends = jnp.cumsum(sizes, axis=1)
    picture = jnp.sum(ends[:, None] <= index[..., None], axis=-1)
    return picture, index - starts(sizes, picture)


def starts(sizes: jax.Array, picture: jax.Array) -> jax.Array:
    """Returns the sum of the sizes [B, I] before each picture [B, N], as [B, N]."""
    sums = jnp.pad(jnp.cumsum(sizes, axis=1), ((0, 0), (1, 0)))
    return jnp.take_along_axis(sums, picture, axis=1)


def answer_places(labels: np.ndarray, room: int = 0) -> np.ndarray:
    """Finds the tokens whose logits predict a supervised token; only their logits are needed.

    Args:
        labels: Labels, int [B, T], -100 where not supervised.
        room: Minimum of S; the same for all batches gives them one shape. 0: S is the next power
            of two.

    Returns:
        Indices of tokens, int32 [B, S]; unused places hold T - 1, whose logits predict nothing.
    """
    supervised = labels[:, 1:] != IGNORE
    counts = supervised.sum(axis=1)
    length = int(counts.max())
    length = max(length, room or 1 << max(length - 1, 0).bit_length())
    places = np.full((len(labels), length), labels.shape[1] - 1, np.int32)
    places[np.arange(places.shape[1]) < counts[:, None]] = np.nonzero(supervised)[1]
    return places


def targets(labels: jax.Array, places: jax.Array | None) -> jax.Array:
    """Returns the labels that the logits at some places predict.

    Args:
        labels: Labels, int [B, T].
        places: Indices of tokens, int [B, S], which `answer_places` returned; None: all T tokens.

    Returns:
        Labels, int [B, S], -100 at unused places.
    """
    following = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORE)
    return following if places is None else jnp.take_along_axis(following, places, axis=1)


def unpacked(batch: Mapping[str, jax.Array], sizes: Sizes) -> dict[str, jax.Array]:
    """Gives every segment of packed rows a row of its own, which begins with its prefix.

    Args:
        batch: `input_ids`, `attention_mask`, `labels` and `segments`, int [B, T].
        sizes: Sizes of the rows.

    Returns:
        `input_ids`, `attention_mask`, `labels` [B * Q, P + S] and `answer_places` [B * Q, S], where
        Q, P and S are the three sizes. Prefixes and segments are padded on the right. A row whose
        packed row has fewer segments supervises nothing.
    """
    segments, (rows, length) = batch["segments"], batch["segments"].shape
    numbers = jnp.arange(1, sizes.segments + 1)[:, None]
    shape = rows, sizes.segments, sizes.prefix + sizes.segment
    place = jnp.arange(shape[-1])
    ours = segments[:, None] == numbers  # [B, Q, T]
    start = jnp.argmax(ours, axis=2, keepdims=True) - sizes.prefix
    places = jnp.where(place < sizes.prefix, place, start + place)
    taken = jnp.minimum(places, length - 1).reshape(rows, -1)

    def take(name: str) -> jax.Array:
        return jnp.take_along_axis(batch[name], taken, axis=1).reshape(shape)

    wanted = jnp.where(place < sizes.prefix, 0, numbers)
    there = (take("segments") == wanted) & (take("attention_mask") > 0) & (places < length)
    answers = max(sizes.prefix - 1, 0) + jnp.arange(sizes.segment)  # each predicts the next token
    arrays = {
        "input_ids": take("input_ids"),
        "attention_mask": there,
        "labels": jnp.where(there, take("labels"), IGNORE),
        "answer_places": jnp.broadcast_to(answers, (*shape[:2], sizes.segment)),
    }
    return {name: array.reshape(-1, array.shape[-1]) for name, array in arrays.items()}
