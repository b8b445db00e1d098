"""NPO: lowers a loss that compares the likelihood of each answer with the vanilla model's.

Source: Zhang et al. 2024, "Negative preference optimization" (arXiv 2404.05868), equation 3.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import OF_EXAMPLES, Term, TokenScores, by_example, mean_of
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class NPOConfig(Section):
    """Options of `npo`."""

    key: ClassVar[str] = "unlearn.npo"

    beta: float = option(
        0.1, "Inverse temperature; near 0 the loss is that of gradient ascent.", above=0
    )
    over: Literal["example", "batch"] = option(
        "example",
        "Takes one likelihood ratio for each example, or one for the batch as published (D-11).",
    )


def npo(scores: TokenScores, *, beta: float, over: str) -> tuple[Term, ...]:
    """Returns the loss of NPO, -2/beta log sigmoid(-beta log(p / p_reference)), as one term.

    The published code takes one likelihood ratio for a whole batch, from token means (D-11).

    Args:
        scores: Scores of the supervised tokens, with `reference`.
        beta: Inverse temperature. The larger it is, the sooner an answer stops counting once the
            model gives it less probability than the reference does; near 0 the loss is that of
            gradient ascent.
        over: With `"example"` the log-ratio of an example is the sum over its tokens, and the loss
            is the mean over examples. With `"batch"` there is one log-ratio, the mean over the
            tokens of the batch.
    """
    nll, reference, counted = _example_ratios(scores) if over == "example" else _batch_ratio(scores)
    return (mean_of(2 / beta * jax.nn.softplus(beta * (reference - nll)), counted),)


def _example_ratios(scores: TokenScores) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the log-likelihoods of the examples, each an array [B, S].

    Returns:
        The model's and the reference's negative log-likelihood of the token's example (float32,
        nats), and whether the token is the first supervised one of its example (bool).
    """
    assert scores.reference is not None
    nll, _, first = by_example(scores)
    # Packed rows count their examples from 1. A row of one example has 0 everywhere.
    places = jnp.maximum(scores.questions - 1, 0)
    return nll, jnp.take_along_axis(scores.reference, places, axis=1), first


def _batch_ratio(scores: TokenScores) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the same three arrays for the mean over the tokens of the batch, each [1, 1]."""
    *both, first = _example_ratios(scores)
    count = jnp.maximum(jnp.sum(scores.supervised), 1)
    ours, theirs = (jnp.sum(jnp.where(first, x, 0), keepdims=True) / count for x in both)
    return ours, theirs, jnp.ones((1, 1), bool)


METHOD = Method(
    "npo",
    "NPO",
    "#0072b2",
    "D",
    forget=Loss(npo, NPOConfig, OF_EXAMPLES),
    retain=None,
    ascends=False,
)
