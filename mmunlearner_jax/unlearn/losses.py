"""The building blocks of losses: pure functions of the scores of supervised tokens.

A loss returns terms. A term holds a sum and a count for every row of a batch. The value of the loss
is the sum of its terms' means, each taken over all batches of a step. All functions also hold for
packed rows, which contain several examples: `TokenScores.questions` tells the examples apart.

Axes: B rows, S supervised tokens of a row (padded), Q examples of a row, V vocabulary, C tokens of
a chunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.unlearn.scoring import (
    EXAMPLE_NLL,
    LOG_PROBS,
    Batch,
    Params,
    answer_nll,
    answer_scores,
    examples,
    negative_log_likelihood,
)


class TokenScores(NamedTuple):
    """A model's scores of the supervised tokens of a batch, in nats.

    Attributes:
        nll: Negative log-likelihood of the label, float32 [B, S].
        supervised: Whether the place holds a supervised token, bool [B, S]. Where it is False, the
            other arrays hold no meaningful value.
        questions: Number of the example that a token belongs to within its row, int [B, S].
        kl: KL(reference || model) of the next token, float32 [B, S]; None where the batch has no
            `LOG_PROBS`.
        reference: The reference model's negative log-likelihood of the examples of a row, float32
            [B, Q], 0 where a row has fewer examples; None where the batch has no `EXAMPLE_NLL`.
        vanilla: The reference model's negative log-likelihood of the label, float32 [B, S]; None
            where the batch has no `LOG_PROBS`.
    """

    nll: jax.Array
    supervised: jax.Array
    questions: jax.Array
    kl: jax.Array | None = None
    reference: jax.Array | None = None
    vanilla: jax.Array | None = None


class Term(NamedTuple):
    """A part of a loss. Its value is sum(sums) / sum(counts) over all rows.

    Attributes:
        sums: Sum of the values of each row, float32 [B], in nats.
        counts: Number of tokens or examples in each sum, int [B].
    """

    sums: jax.Array
    counts: jax.Array


# A loss is a function of what a model gives of a batch: by default its scores of supervised tokens.
Of = Callable[[nnx.GraphDef, Params, Sequence[Batch]], Sequence[Any]]
Terms = Callable[[Any], tuple[Term, ...]]


def score_tokens(
    graphdef: nnx.GraphDef, params: Params, batches: Sequence[Batch]
) -> list[TokenScores]:
    """Runs the model on batches and returns the scores of their supervised tokens.

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batches: Dicts as `scoring.answer_scores` takes them. They may also hold a reference model's
            scores, see `LOG_PROBS` and `EXAMPLE_NLL`.

    Returns:
        The scores of each batch.
    """

    def score(logits: jax.Array, targets: jax.Array, *log_probs: jax.Array) -> tuple:
        nll = negative_log_likelihood(logits, targets)
        if not log_probs:
            return (nll,)
        (reference,) = log_probs
        label = jnp.maximum(targets, 0)[..., None]
        vanilla = -jnp.take_along_axis(reference, label, axis=-1)[..., 0]
        return nll, divergence(logits, reference), vanilla

    scored = []
    found = answer_scores(graphdef, params, batches, score, beside=LOG_PROBS)
    for batch, ((nll, *both), supervised, questions) in zip(batches, found, strict=True):
        kl, vanilla = both or (None, None)
        reference = batch.get(EXAMPLE_NLL)
        scored.append(TokenScores(nll, supervised, questions, kl, reference, vanilla))
    return scored


def mean(batches: Iterable[tuple[Term, ...]]) -> jax.Array:
    """Returns the value of a loss over several batches, a float32 scalar in nats.

    Args:
        batches: The loss's terms for each batch.
    """
    totals: list[Term] = []
    for terms in batches:
        before = totals or [Term(jnp.zeros(()), jnp.zeros((), jnp.int32))] * len(terms)
        totals = [
            Term(total.sums + jnp.sum(term.sums), total.counts + jnp.sum(term.counts))
            for total, term in zip(before, terms, strict=True)
        ]
    return functools.reduce(jnp.add, (sums / jnp.maximum(count, 1) for sums, count in totals))


def divergence(logits: jax.Array, reference: jax.Array) -> jax.Array:
    """Returns KL(reference || model) in nats, float32 [B, C].

    Args:
        logits: Logits of the model, [B, C, V].
        reference: Log-probabilities of the reference model, float32 [B, C, V].
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.sum(jnp.exp(reference) * (reference - log_probs), axis=-1)


def supervised_tokens(scores: TokenScores) -> jax.Array:
    """Returns the number of supervised tokens of each row, int [B]."""
    return jnp.sum(scores.supervised, axis=1)


def cross_entropy(scores: TokenScores) -> tuple[Term, ...]:
    """Returns the mean negative log-likelihood of all supervised tokens, as one term.

    Forget steps that raise this loss perform gradient ascent (GA).
    """
    return (Term(jnp.sum(scores.nll * scores.supervised, axis=1), supervised_tokens(scores)),)


def by_example(scores: TokenScores) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns values of whole examples, each an array [B, S].

    Returns:
        The negative log-likelihood of the token's example (float32, nats); the number of its
        supervised tokens (int); and whether the token is the first supervised one of its example
        (bool), so that each example can be counted once.
    """
    same, first = examples(scores.supervised, scores.questions)
    sums = jnp.sum(jnp.where(same, scores.nll[:, None, :], 0), axis=2)
    return sums, jnp.sum(same, axis=2), first


def mean_of(values: jax.Array, counted: jax.Array) -> Term:
    """Returns the mean of some values, as one term.

    Args:
        values: Float32 [B, S].
        counted: Bool [B, S], True where a value belongs to the mean.
    """
    return Term(jnp.sum(jnp.where(counted, values, 0), axis=1), jnp.sum(counted, axis=1))


@dataclasses.dataclass(frozen=True)
class Reference:
    """A score that the frozen vanilla model computes for every example before unlearning begins.

    Attributes:
        name: Key of the scores in a batch; the array is [B, slots, ...].
        slots: Whether a row has a score for each question or for each supervised token.
        ask: Computes the scores of a batch whose rows hold one example each, from the model's graph
            definition and parameters and the batch.
        about: What is asked: the examples themselves, or examples with the same answers about
            pictures in which nobody can be recognised (`data.noising`).
    """

    name: str
    slots: Literal["questions", "tokens"]
    ask: Callable[[nnx.GraphDef, Params, Batch], jax.Array]
    about: Literal["own", "noised"] = "own"


def _log_probs(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> jax.Array:
    def score(logits: jax.Array, _: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)

    return answer_scores(graphdef, params, [batch], score)[0].values


def _nll(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> jax.Array:
    return answer_nll(graphdef, params, batch)[0][:, None]


OF_EXAMPLES = Reference(EXAMPLE_NLL, "questions", _nll)
OF_TOKENS = Reference(LOG_PROBS, "tokens", _log_probs)
OF_NOISED = Reference(LOG_PROBS, "tokens", _log_probs, "noised")
