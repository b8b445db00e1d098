"""Scores that a model gives supervised tokens: likelihoods, and whether answers are exact.

Axes: B rows, T tokens, S supervised tokens of a row (padded), V vocabulary, C tokens of a chunk, D
text features.
Labels follow transformers: -100 marks a token that is not supervised, and the logits at position t
predict the label at t + 1. A row is one example, or several examples that share a picture
(`models.packing`). Sums and counts are then per row, and `questions` tells the examples apart.

The scores of a frozen reference model are part of the batch, see `LOG_PROBS` and `EXAMPLE_NLL`.
`losses` builds the losses of the methods from all these scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.models.logits import Score
from mmunlearner_jax.models.packing import IGNORE, targets
from mmunlearner_jax.models.vision_language import Asked

Params = Any
NOTHING = nnx.State({})  # an empty tree of parameters
Batch = Mapping[str, Any]


# Keys of a batch that hold the scores of a reference model (`data.references`).
EXAMPLE_NLL = "reference_nll"  # [B, Q], for each of the row's Q examples in order
LOG_PROBS = "reference_log_probs"  # [B, S, V], for each of the row's supervised tokens


# What a batch holds besides pictures.
_TEXT = ("input_ids", "attention_mask", "segments", "labels", "answer_places")


def pictures_of(batch: Batch) -> dict[str, Any]:
    """Returns the arrays of a batch that describe its pictures, by name; none for text."""
    others = (*_TEXT, EXAMPLE_NLL, LOG_PROBS)
    return {name: array for name, array in batch.items() if name not in others}


class Scores(NamedTuple):
    """The values of a function of the logits at supervised tokens.

    Attributes:
        values: A tree of arrays [B, S, ...]; meaningful only where `supervised` is True.
        supervised: Whether the place holds a supervised token, bool [B, S].
        questions: Number of the example that a token belongs to within its row, int [B, S].
    """

    values: Any
    supervised: jax.Array
    questions: jax.Array


def answer_scores(
    graphdef: nnx.GraphDef, params: Params, batches: Sequence[Batch], score: Score, beside: str = ""
) -> list[Scores]:
    """Runs the model on batches, and its output head on the supervised tokens only.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batches: Dicts with `labels` [B, T] and the model's inputs: `input_ids` and `attention_mask`
            [B, T], `segments` [B, T] of packed rows, pictures. They may hold `answer_places`
            [B, S], which `packing.answer_places` returned; without it S is T.
        score: Function of logits [B, C, V] and targets [B, C]; see `VisionLanguageModel.score`.
        beside: Name of arrays [B, S, ...] that `score` takes after the targets, of the batches that
            have them; "": none.

    Returns:
        The scores of each batch.
    """
    others = ("labels", "answer_places", EXAMPLE_NLL, LOG_PROBS)
    supervised = list(map(supervision, batches))
    asked = [
        Asked(
            {k: v for k, v in batch.items() if k not in others},
            labels,
            batch.get("answer_places"),
            (batch[beside],) if beside in batch else (),
        )
        for batch, (labels, _) in zip(batches, supervised, strict=True)
    ]
    values = nnx.merge(graphdef, params).score(score, *asked)
    return [
        Scores(of_batch, labels != IGNORE, questions)
        for of_batch, (labels, questions) in zip(values, supervised, strict=True)
    ]


def supervision(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns what a batch supervises, without a model.

    Args:
        batch: As in `answer_scores`.

    Returns:
        The labels of the supervised tokens, int [B, S], -100 at unused places; and the number of
        the example that each belongs to within its row, int [B, S].
    """
    places, segments = batch.get("answer_places"), batch.get("segments")
    labels = targets(batch["labels"], places)
    if segments is None:
        return labels, jnp.zeros_like(labels)
    return labels, segments if places is None else jnp.take_along_axis(segments, places, axis=1)


def negative_log_likelihood(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the negative log-likelihood of the targets in nats, float32 [B, C].

    Args:
        logits: Logits [B, C, V].
        targets: Token ids [B, C]; where a target is -100 the result is an arbitrary number.
    """
    return optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.maximum(targets, 0)
    )


def answer_nll(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the negative log-likelihood of every row's supervised tokens.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batch: As in `answer_scores`.

    Returns:
        The sum over the supervised tokens of each row in nats, float32 [B], and their number, int32
        [B].
    """
    (scores,) = answer_scores(graphdef, params, [batch], negative_log_likelihood)
    return (
        jnp.sum(scores.values * scores.supervised, axis=1),
        jnp.sum(scores.supervised, axis=1),
    )


def exact_answers(
    graphdef: nnx.GraphDef, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Counts the answers that greedy decoding would give exactly.

    One pass with teacher forcing decides it: if the argmax at every supervised token of an example
    equals its label, greedy decoding gives the same tokens.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batch: As in `answer_scores`.

    Returns:
        Two scalars: the number of exact answers (float32), and the number of all answers (int32).
        The first is NaN where a logit is not finite, because argmax would still return a token.
    """

    def right(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.argmax(logits, axis=-1) == targets, jnp.isfinite(jnp.max(logits, axis=-1))

    (scores,) = answer_scores(graphdef, params, [batch], right)
    (values, finite), supervised, questions = scores
    same, first = examples(supervised, questions)
    exact = first & jnp.all(values[:, None, :] | ~same, axis=2)
    all_finite = jnp.all(finite | ~supervised)
    return jnp.where(all_finite, jnp.sum(exact).astype(jnp.float32), jnp.nan), jnp.sum(first)


def answer_probabilities(
    graphdef: nnx.GraphDef, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Sums the probabilities of answers, each the geometric mean over its tokens.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batch: As in `answer_scores`.

    Returns:
        Two scalars: the sum over all answers (float32), and their number (int32). The first is NaN
        where a log-probability is.

    Source: the metric "probability" of TOFU (arXiv 2401.06121).
    """
    (scores,) = answer_scores(graphdef, params, [batch], negative_log_likelihood)
    nll, supervised, questions = scores
    same, first = examples(supervised, questions)
    means = jnp.sum(nll[:, None, :] * same, axis=2) / jnp.maximum(jnp.sum(same, axis=2), 1)
    return jnp.sum(jnp.exp(-means) * first), jnp.sum(first)


def examples(supervised: jax.Array, questions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tells the examples of a row apart, each by its first supervised token.

    Args:
        supervised: Whether a place holds a supervised token, bool [B, S].
        questions: Number of the example that a token belongs to within its row, int [B, S].

    Returns:
        Bool [B, S, S], True where the token of the third axis is supervised and belongs to the same
        example as the token of the second axis; and bool [B, S], True for the first supervised
        token of each example.
    """
    same = (questions[:, :, None] == questions[:, None, :]) & supervised[:, None, :]
    return same, supervised & ~jnp.any(jnp.tril(same, -1), axis=2)


class ImageTokens(NamedTuple):
    """What the decoder is given of the pictures of a batch.

    Attributes:
        features: Inputs of the decoder, float32 [B, T, D].
        seen: Whether the place holds an image token, bool [B, T, 1].
    """

    features: jax.Array
    seen: jax.Array


def image_tokens(
    graphdef: nnx.GraphDef, params: Params, batches: Sequence[Batch]
) -> list[ImageTokens]:
    """Runs vision tower and projector alone.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batches: Dicts with `input_ids` [B, T] and pictures.

    Returns:
        What the decoder is given of each batch.
    """
    model = nnx.merge(graphdef, params)

    def of_one(batch: Batch) -> ImageTokens:
        ids = batch["input_ids"]
        features = model.decoder_inputs(ids, **pictures_of(batch)).astype(jnp.float32)
        return ImageTokens(features, model.config.pictured(ids)[..., None])

    return list(map(of_one, batches))


def token_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the mean over all supervised tokens of a batch, as transformers' models compute it.

    Args:
        nll: Sum of the negative log-likelihoods of each row in nats, float32 [B].
        count: Number of supervised tokens of each row, int [B].
    """
    return jnp.sum(nll) / jnp.maximum(jnp.sum(count), 1)


def example_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Returns each row's mean over its own supervised tokens, float32 [B]; 0 without any.

    Args:
        nll: Sum of the negative log-likelihoods of each row in nats, float32 [B].
        count: Number of supervised tokens of each row, int [B].
    """
    return nll / jnp.maximum(count, 1)
