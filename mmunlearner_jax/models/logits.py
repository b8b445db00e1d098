"""Functions of next-token logits, of which a few tokens' exist at a time.

Axes: B examples, S tokens, C tokens of a piece, D features, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Score = Callable[..., Any]

# The most logits of one row that are computed at once: 64 MiB in float32. Ten answers of 32 tokens
# are one piece with a vocabulary of 32,064 words, and three with 152,064.
_LOGITS = 2**24


def tied(matrix: jax.Array | None, x: jax.Array) -> jax.Array:
    """Returns float32 logits [B, S, V] of x [B, S, D] by the token embedding.

    Args:
        matrix: The embedding [V, D], or one for each example [B, V, D].
        x: Normalised hidden states.
    """
    assert matrix is not None
    equation = "btd,vd->btv" if matrix.ndim == 2 else "btd,bvd->btv"
    return jnp.einsum(equation, x, matrix.astype(x.dtype), preferred_element_type=jnp.float32)


def in_pieces(
    head: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    beside: tuple[jax.Array, ...],
    score: Score,
    words: int,
) -> Any:
    """Returns `score(head(x), *beside)`, computed for a few tokens of each row at a time.

    Args:
        head: Maps hidden states [B, C, D] to logits [B, C, V].
        x: Hidden states [B, S, D].
        beside: Arrays [B, S, ...] that `score` takes after the logits.
        score: Function of logits and arrays [B, C, ...]; it returns a tree of arrays [B, C, ...].
        words: Number of words, V.

    Returns:
        The tree of `score`, arrays [B, S, ...].
    """
    (rows, tokens), length = x.shape[:2], max(1, _LOGITS // words)
    if tokens <= length:
        return score(head(x), *beside)
    count = -(-tokens // length)
    length = -(-tokens // count)  # makes the pieces as equal as possible
    pieces = tuple(
        jnp.moveaxis(
            jnp.pad(y, ((0, 0), (0, count * length - tokens), *[(0, 0)] * (y.ndim - 2))).reshape(
                rows, count, length, *y.shape[2:]
            ),
            1,
            0,
        )
        for y in (x, *beside)
    )
    # The backward pass computes the logits again instead of keeping them.
    one = jax.checkpoint(lambda piece: score(head(piece[0]), *piece[1:]))
    return jax.tree.map(
        lambda y: jnp.moveaxis(y, 0, 1).reshape(rows, -1, *y.shape[3:])[:, :tokens],
        jax.lax.map(one, pieces),
    )
