"""The losses of the methods: pure functions of what a model says of the supervised tokens.

A loss gives terms, each the sums and the counts of the rows of a batch; its value is the sum of the
terms' means over all batches of a step. All hold for packed rows: what is of an example is told
apart by `questions`.

Axes: B rows, S supervised tokens of a row (padded), Q examples of a row, V vocabulary, C tokens of
a chunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.unlearn.losses import (
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
        nll: float32 [B, S], negative log-likelihood of the label.
        supervised: bool [B, S]; elsewhere the others mean nothing.
        questions: int [B, S], equal for the tokens of one example of a row.
        kl: float32 [B, S], KL(reference || model) of the next token; None without `LOG_PROBS`.
        reference: float32 [B, Q], the reference's nll of the row's examples, 0 where there are
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
        sums: float32 [B], of every row.
        counts: int [B], how many tokens or examples they are of.
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


def tokens(said: Said) -> jax.Array:
    """Int [B], the number of a row's supervised tokens."""
    return jnp.sum(said.supervised, axis=1)


def cross_entropy(said: Said) -> tuple[Term, ...]:
    """Mean over all supervised tokens; raised, it is gradient ascent (GA)."""
    return (Term(jnp.sum(said.nll * said.supervised, axis=1), tokens(said)),)


def kl_min(said: Said, *, weight: float, over: str) -> tuple[Term, ...]:
    """Cross-entropy and KL(reference || model), the retain loss of KL-Min.

    The published code adds the divergences of all positions up and divides by the batch size alone,
    so that they outweigh the cross-entropy by as many as a row has tokens (D-10).

    Args:
        said: with `kl`.
        weight: of the divergence.
        over: `"token"`: its mean over supervised tokens; `"example"`: its sum over them, divided by
            the number of examples.
    """
    assert said.kl is not None
    divergences = weight * jnp.sum(said.kl * said.supervised, axis=1)
    return *cross_entropy(said), Term(divergences, OF_ROWS[over](said))


def npo(said: Said, *, beta: float, over: str) -> tuple[Term, ...]:
    """Negative preference optimisation, -2/beta log sigmoid(-beta log(p / p_reference)).

    Source: Zhang et al. 2024, "Negative preference optimization", equation 3. The published code
    takes one ratio of a whole batch, of token means (D-11).

    Args:
        said: with `reference`.
        beta: how soon an answer that the model gives less than the reference counts no more; near
            0 it is gradient ascent.
        over: `"example"`: an example's log-ratio is the sum over its tokens, and the loss the mean
            over examples; `"batch"`: the log-ratio is that of the batch's mean token.
    """
    nll, reference, counted = RATIOS[over](said)
    return (_each(2 / beta * jax.nn.softplus(beta * (reference - nll)), counted),)


def simnpo(said: Said, *, beta: float, gamma: float) -> tuple[Term, ...]:
    """NPO without a reference, -2/beta log sigmoid(-beta/|y| log p - gamma), mean over examples.

    Source: Fan et al. 2024, "Simplicity prevails", equation 4.

    Args:
        said: of any model.
        beta: of an example's mean token, so larger than NPO's.
        gamma: the margin that its mean loss must keep above 0.
    """
    nll, lengths, first = _by_example(said)
    margin = beta * nll / jnp.maximum(lengths, 1) - gamma
    return (_each(2 / beta * jax.nn.softplus(-margin), first),)


def _by_example(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums and lengths of the examples, and where they stand, all [B, S]."""
    same, first = examples(said.supervised, said.questions)
    sums = jnp.sum(jnp.where(same, said.nll[:, None, :], 0), axis=2)
    return sums, jnp.sum(same, axis=2), first


def _each(values: jax.Array, counted: jax.Array) -> Term:
    """Of values [B, S] that are counted in some places."""
    return Term(jnp.sum(jnp.where(counted, values, 0), axis=1), jnp.sum(counted, axis=1))


def _example_ratios(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    assert said.reference is not None
    nll, _, first = _by_example(said)
    # Segments are counted from 1 in packed rows; else a row is one example, and all are 0.
    places = jnp.maximum(said.questions - 1, 0)
    return nll, jnp.take_along_axis(said.reference, places, axis=1), first


def _batch_ratio(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    *both, first = _example_ratios(said)
    count = jnp.maximum(jnp.sum(said.supervised), 1)
    ours, theirs = (jnp.sum(jnp.where(first, x, 0), keepdims=True) / count for x in both)
    return ours, theirs, jnp.ones((1, 1), bool)


# What `over` of `npo` and of `kl_min` names.
RATIOS: Mapping[str, Callable[[Said], tuple[jax.Array, jax.Array, jax.Array]]] = {
    "example": _example_ratios,
    "batch": _batch_ratio,
}
OF_ROWS: Mapping[str, Callable[[Said], jax.Array]] = {
    "token": tokens,
    "example": lambda said: jnp.sum(_by_example(said)[2], axis=1),
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a frozen model is asked of examples, once, before anything moves.

    Attributes:
        name: of the answer in a batch, [B, slots, ...].
        slots: what a row has them for: its questions, or its supervised tokens.
        ask: gives it for a batch whose rows are an example each.
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
