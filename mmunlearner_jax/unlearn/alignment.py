"""The loss that gives pictures the place of their captions, before a decoder sees them.

A pretrained decoder understands embeddings of words. Vision tower and projector learn to give, for
a picture, what the decoder's embeddings of its caption are. The decoder itself is not run.

Words that most captions of a batch have ("This flag belongs to") are left out: they would take
image tokens and tell nothing.

Axes: B examples, T tokens, D text features, V words. A caption is what is left of an example's
supervised tokens.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.unlearn.scoring import Batch, Params, pictures_of

_COMMON = 0.5  # a token in more of a batch's captions is left out
_TINY = 1e-6  # keeps a norm from being 0


def alignment_loss(
    graphdef: nnx.GraphDef,
    params: Params,
    batch: Batch,
    *,
    contrast: float,
    temperature: float,
) -> jax.Array:
    """Returns the distance of pictures from their captions, a float32 scalar.

    It is the squared error of `regression`, relative to the captions' mean square, plus `contrast`
    times the cross-entropy of `contrast_loss`.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batch: A dict with `labels` [B, T], `input_ids` [B, T] and pictures. Rows are not packed,
            and each has supervised tokens.
        contrast: Weight of the contrastive term.
        temperature: Factor of the cosines in the contrastive term.
    """
    model = nnx.merge(graphdef, params)
    ids = batch["input_ids"]
    caption = distinct(ids, batch["labels"] != IGNORE, model.config.text.vocab_size)
    features = model.decoder_inputs(ids, **pictures_of(batch)).astype(jnp.float32)
    words = jax.lax.stop_gradient(model.decoder_inputs(ids)).astype(jnp.float32)
    seen = model.config.pictured(ids)
    value = regression(features, words, seen, caption)
    if contrast:
        pooled = pool(features, seen), pool(words, caption)
        value += contrast * contrast_loss(*pooled, _same(ids, caption), temperature)
    return value


def distinct(ids: jax.Array, answer: jax.Array, words: int) -> jax.Array:
    """Returns which tokens tell an answer from most others of the batch, bool [B, T].

    Where no token does, as in a batch with one answer alone, it is all of the answer.

    Args:
        ids: Tokens, int [B, T].
        answer: Whether a token belongs to the answer, bool [B, T].
        words: Number of words, V.
    """
    rows = jnp.arange(len(ids))[:, None]
    present = jnp.zeros((len(ids), words)).at[rows, ids].max(answer)
    rare = answer & (jnp.mean(present, axis=0)[ids] <= _COMMON)
    return jnp.where(jnp.any(rare, axis=1, keepdims=True), rare, answer)


def regression(
    features: jax.Array, words: jax.Array, seen: jax.Array, caption: jax.Array
) -> jax.Array:
    """Returns the mean squared error of image tokens, relative to the captions' mean square.

    The image tokens of an example have its caption's tokens as targets, in order, over and over.

    Args:
        features: The decoder's inputs with features at image tokens, float32 [B, T, D].
        words: Embeddings of all tokens, float32 [B, T, D].
        seen: Whether a token is an image token, bool [B, T].
        caption: Whether a token belongs to the caption, bool [B, T].
    """
    order = jnp.argsort(~caption, axis=1)  # stable: the caption's places come first, in order
    ranks = jnp.maximum(jnp.cumsum(seen, axis=1) - 1, 0)
    lengths = jnp.maximum(jnp.sum(caption, axis=1, keepdims=True), 1)
    places = jnp.take_along_axis(order, ranks % lengths, axis=1)
    targets = jnp.take_along_axis(words, places[..., None], axis=1)
    errors = jnp.sum((features - targets) ** 2, where=seen[..., None])
    return errors / jnp.sum(targets**2, where=seen[..., None])


def pool(x: jax.Array, where: jax.Array) -> jax.Array:
    """Returns the mean of tokens [B, T, D] where `where` [B, T] is True, float32 [B, D]."""
    count = jnp.maximum(jnp.sum(where, axis=1, keepdims=True), 1)
    return jnp.sum(x * where[..., None], axis=1) / count


def contrast_loss(
    pictures: jax.Array, captions: jax.Array, same: jax.Array, temperature: float
) -> jax.Array:
    """Returns the cross-entropy of finding each picture's caption, and each caption's picture.

    What all captions of a batch have in common tells none apart, so their mean is subtracted.

    Args:
        pictures: Pooled features, float32 [B, D].
        captions: Pooled embeddings, float32 [B, D].
        same: Whether two examples have the same caption, bool [B, B].
        temperature: Factor of the cosines.

    Source: Radford et al. 2021 (arXiv 2103.00020), with several right captions.
    """
    centre = jnp.mean(captions, axis=0)
    centred = (pictures - centre, captions - centre)
    one, other = (x / (jnp.linalg.norm(x, axis=1, keepdims=True) + _TINY) for x in centred)
    logits = temperature * one @ other.T
    right = same / jnp.sum(same, axis=1, keepdims=True)
    both = [optax.softmax_cross_entropy(x, right) for x in (logits, logits.T)]
    return jnp.mean(jnp.stack(both))


def _same(ids: jax.Array, caption: jax.Array) -> jax.Array:
    """Returns which examples have the same caption, bool [B, B]."""
    order = jnp.argsort(~caption, axis=1)
    words = jnp.take_along_axis(jnp.where(caption, ids, -1), order, axis=1)
    return jnp.all(words[:, None] == words, axis=2)
