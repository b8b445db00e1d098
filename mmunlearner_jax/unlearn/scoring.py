"""What a model says of supervised tokens, and how sure it is of the answers.

Axes: B rows, T tokens, S supervised tokens of a row (padded), V vocabulary, C tokens of a chunk.
Labels follow transformers: -100 is not supervised, and the logits at position t predict the label
at t + 1. A row is an example, or several that share a picture (`models.packing`); sums and counts
are then of the row, and `questions` tells its examples apart.

What a frozen reference model said lies in the batch, see `LOG_PROBS` and `EXAMPLE_NLL`. The losses
of the methods are made of all this in `objectives`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.models.llama import Score
from mmunlearner_jax.models.packing import IGNORE, targets

Params = Any
NOTHING = nnx.State({})  # parameters, none
Batch = Mapping[str, Any]


# Where a batch holds what a reference model said (`data.references`).
EXAMPLE_NLL = "reference_nll"  # [B, Q], of the row's examples one after the other
LOG_PROBS = "reference_log_probs"  # [B, S, V], at the row's supervised tokens


class Scores(NamedTuple):
    """What a function of the logits says of supervised tokens.

    Attributes:
        values: A tree of [B, S, ...]; it means nothing where nothing is supervised.
        supervised: Bool [B, S].
        questions: Int [B, S], equal for the tokens of one example of a row.
    """

    values: Any
    supervised: jax.Array
    questions: jax.Array


def answer_scores(
    graphdef: nnx.GraphDef,
    params: Params,
    batch: Batch,
    score: Score,
    beside: tuple[jax.Array, ...] = (),
) -> Scores:
    """Runs the model on a batch, and the head on its supervised tokens.

    Args:
        graphdef: Of the model.
        params: Of the model.
        batch: `labels` [B, T], maybe `answer_places` [B, S] (of `packing.answer_places`; without
            it S is T), and what the model is given: `input_ids`, `attention_mask`, `segments` of
            packed rows, pictures.
        score: Of float32 logits [B, C, V] and targets [B, C]; see `VisionLanguageModel.score`.
        beside: Arrays [B, S, ...] that `score` gets behind the targets.
    """
    others = ("labels", "answer_places", EXAMPLE_NLL, LOG_PROBS)
    inputs = {k: v for k, v in batch.items() if k not in others}
    places, segments = batch.get("answer_places"), batch.get("segments")
    wanted = targets(batch["labels"], places)
    values = nnx.merge(graphdef, params).score(score, wanted, places, beside=beside, **inputs)
    if segments is None:
        questions = jnp.zeros_like(wanted)
    else:
        questions = segments if places is None else jnp.take_along_axis(segments, places, axis=1)
    return Scores(values, wanted != IGNORE, questions)


def negative_log_likelihood(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Of logits [B, C, V] and targets [B, C]: float32 [B, C], nats; any number at -100."""
    return optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.maximum(targets, 0)
    )


def answer_nll(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of every row's supervised tokens.

    Args:
        graphdef: Of the model.
        params: Of the model.
        batch: As in `answer_scores`.

    Returns:
        Sum over the supervised tokens [B] float32 (nats), and their number [B] int32.
    """
    found = answer_scores(graphdef, params, batch, negative_log_likelihood)
    return (
        jnp.sum(found.values * found.supervised, axis=1),
        jnp.sum(found.supervised, axis=1),
    )


def exact_answers(
    graphdef: nnx.GraphDef, params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """How many examples' supervised tokens greedy decoding would give, all of them.

    Teacher forcing decides it in one pass: if every argmax equals its label, so does decoding.

    Args:
        graphdef: Of the model.
        params: Of the model.
        batch: As in `answer_scores`.

    Returns:
        Scalars: so many answers would be given (float32; NaN where a logit is not finite, since
        argmax makes a token of it), of so many that there are (int32).
    """

    def right(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.argmax(logits, axis=-1) == targets, jnp.isfinite(jnp.max(logits, axis=-1))

    (values, finite), supervised, questions = answer_scores(graphdef, params, batch, right)
    same, first = examples(supervised, questions)
    given = first & jnp.all(values[:, None, :] | ~same, axis=2)
    told = jnp.all(finite | ~supervised)
    return jnp.where(told, jnp.sum(given).astype(jnp.float32), jnp.nan), jnp.sum(first)


def examples(supervised: jax.Array, questions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tells the examples of a row apart, each by its first supervised token.

    Args:
        supervised: Bool [B, S].
        questions: Int [B, S], equal for the tokens of one example.

    Returns:
        Bool [B, S, S], whether the token of the third axis is supervised and belongs to the example
        of the second's; bool [B, S], whether it is the first supervised one of its example.
    """
    same = (questions[:, :, None] == questions[:, None, :]) & supervised[:, None, :]
    return same, supervised & ~jnp.any(jnp.tril(same, -1), axis=2)


def token_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Mean over all supervised tokens of the batch, the loss of transformers' models."""
    return jnp.sum(nll) / jnp.maximum(jnp.sum(count), 1)


def example_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Every example's mean over its own supervised tokens, [B]; 0 where there are none."""
    return nll / jnp.maximum(count, 1)
