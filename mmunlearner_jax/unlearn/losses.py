"""What losses are made of: pure functions of what a model says of the supervised tokens.

A loss gives terms, each the sums and the counts of the rows of a batch; its value is the sum of the
terms' means over all batches of a step. All hold for packed rows: what is of an example is told
apart by `questions`.

Axes: B rows, S supervised tokens of a row (padded), Q examples of a row, V vocabulary, C tokens of
a chunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

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


class Said(NamedTuple):
    """What a model says of the supervised tokens of a batch, in nats.

    Attributes:
        nll: Float32 [B, S], negative log-likelihood of the label.
        supervised: Bool [B, S]; elsewhere the others mean nothing.
        questions: Int [B, S], equal for the tokens of one example of a row.
        kl: Float32 [B, S], KL(reference || model) of the next token; None without `LOG_PROBS`.
        reference: Float32 [B, Q], the reference's nll of the row's examples, 0 where there are
            none; None without `EXAMPLE_NLL`.
    """

    nll: jax.Array
    supervised: jax.Array
    questions: jax.Array
    kl: jax.Array | None = None
    reference: jax.Array | None = None


class Term(NamedTuple):
    """A part of a loss, whose value is sum(sums) / sum(counts) over all rows.

    Attributes:
        sums: Float32 [B], of every row.
        counts: Int [B], how many tokens or examples they are of.
    """

    sums: jax.Array
    counts: jax.Array


Terms = Callable[[Said], tuple[Term, ...]]


def say(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> Said:
    """Runs the model on a batch as `losses.answer_scores` takes it, with what references said."""

    def score(logits: jax.Array, targets: jax.Array, *log_probs: jax.Array) -> tuple:
        divergences = (divergence(logits, reference) for reference in log_probs)
        return negative_log_likelihood(logits, targets), *divergences

    beside = (batch[LOG_PROBS],) if LOG_PROBS in batch else ()
    (nll, *kl), supervised, questions = answer_scores(graphdef, params, batch, score, beside)
    return Said(nll, supervised, questions, kl[0] if kl else None, batch.get(EXAMPLE_NLL))


def mean(batches: Iterable[tuple[Term, ...]]) -> jax.Array:
    """The value of a loss, a float32 scalar, from its terms for several batches together."""
    totals: list[Term] = []
    for terms in batches:
        before = totals or [Term(jnp.zeros(()), jnp.zeros((), jnp.int32))] * len(terms)
        totals = [
            Term(total.sums + jnp.sum(term.sums), total.counts + jnp.sum(term.counts))
            for total, term in zip(before, terms, strict=True)
        ]
    return functools.reduce(jnp.add, (sums / jnp.maximum(count, 1) for sums, count in totals))


def divergence(logits: jax.Array, reference: jax.Array) -> jax.Array:
    """KL(reference || model), float32 [B, C], of logits and log-probabilities [B, C, V]."""
    said = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.sum(jnp.exp(reference) * (reference - said), axis=-1)


def supervised_tokens(said: Said) -> jax.Array:
    """Int [B], the number of a row's supervised tokens."""
    return jnp.sum(said.supervised, axis=1)


def cross_entropy(said: Said) -> tuple[Term, ...]:
    """Mean over all supervised tokens; raised, it is gradient ascent (GA)."""
    return (Term(jnp.sum(said.nll * said.supervised, axis=1), supervised_tokens(said)),)


def by_example(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums and lengths of the examples, and where they stand, all [B, S]."""
    same, first = examples(said.supervised, said.questions)
    sums = jnp.sum(jnp.where(same, said.nll[:, None, :], 0), axis=2)
    return sums, jnp.sum(same, axis=2), first


def mean_of(values: jax.Array, counted: jax.Array) -> Term:
    """The mean of values [B, S] over the places counted, bool [B, S], as one term."""
    return Term(jnp.sum(jnp.where(counted, values, 0), axis=1), jnp.sum(counted, axis=1))


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a frozen model is asked of examples, once, before anything moves.

    Attributes:
        name: Of the answer in a batch, [B, slots, ...].
        slots: What a row has them for: its questions, or its supervised tokens.
        ask: Gives it for a batch whose rows are an example each.
    """

    name: str
    slots: Literal["questions", "tokens"]
    ask: Callable[[nnx.GraphDef, Params, Batch], jax.Array]


def _log_probs(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> jax.Array:
    def score(logits: jax.Array, _: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)

    return answer_scores(graphdef, params, batch, score).values


def _nll(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> jax.Array:
    return answer_nll(graphdef, params, batch)[0][:, None]


OF_EXAMPLES = Reference(EXAMPLE_NLL, "questions", _nll)
OF_TOKENS = Reference(LOG_PROBS, "tokens", _log_probs)
