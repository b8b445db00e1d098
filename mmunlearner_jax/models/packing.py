"""One picture, many questions: rows in which what several questions begin with stands once.

A row is a prefix, which ends with the picture, and behind it segments: what is left of each
question and its answer. Every segment sees the prefix and itself, and its positions go on where the
prefix ends, so it is computed as if it stood alone. A row of text has no prefix, and whole
questions as segments. An array `segments` says what every token belongs to: 0 is the prefix, 1, 2,
... are the segments, each unbroken.

Axes: B rows, T tokens, S supervised tokens of a row (padded).
"""

import jax
import jax.numpy as jnp
import numpy as np

IGNORE = -100  # the label of a token that is not supervised


def visible(valid: jax.Array, segments: jax.Array | None) -> jax.Array:
    """Which token sees which.

    Args:
        valid: bool [B, T], False for padding.
        segments: int [B, T]; None: the rows are not packed.

    Returns:
        bool [B, T, T], True where the token of the second axis sees that of the third: itself and
        the valid ones before it, of its own segment and of the prefix.
    """
    seen = jnp.tril(jnp.ones((valid.shape[1],) * 2, bool)) & valid[:, None, :]
    if segments is None:
        return seen
    own, other = segments[:, :, None], segments[:, None, :]
    return seen & ((other == 0) | (other == own))


def ranks(valid: jax.Array, segments: jax.Array) -> jax.Array:
    """Int [B, T], the number of valid tokens of a token's own segment before it."""
    before = jnp.cumsum(valid, axis=1) - valid
    starts = jnp.diff(segments, axis=1, prepend=-1) != 0
    return before - jax.lax.cummax(jnp.where(starts, before, 0), axis=1)


def answer_places(labels: np.ndarray, room: int = 0) -> np.ndarray:
    """Finds the tokens whose logits predict a supervised one, so that no others are computed.

    Args:
        labels: int [B, T], -100 where not supervised.
        room: S at least; the same for all batches keeps their shapes alike. 0: a power of two.

    Returns:
        int32 [B, S]; unused ones are T - 1, whose logits predict nothing.
    """
    supervised = labels[:, 1:] != IGNORE
    counts = supervised.sum(axis=1)
    length = int(counts.max())
    length = max(length, room or 1 << max(length - 1, 0).bit_length())
    places = np.full((len(labels), length), labels.shape[1] - 1, np.int32)
    places[np.arange(places.shape[1]) < counts[:, None]] = np.nonzero(supervised)[1]
    return places


def targets(labels: jax.Array, places: jax.Array | None) -> jax.Array:
    """The labels that the logits at the places predict.

    Args:
        labels: int [B, T].
        places: int [B, S] of `answer_places`; None: all T.

    Returns:
        int [B, S], -100 at unused places.
    """
    following = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORE)
    return following if places is None else jnp.take_along_axis(following, places, axis=1)
