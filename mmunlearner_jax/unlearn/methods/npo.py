"""NPO: lowers a bounded loss that compares each answer with the vanilla model's.

Source: Zhang et al. 2024, "Negative preference optimization" (arXiv 2404.05868), equation 3.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import OF_EXAMPLES, Said, Term, by_example, mean_of
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class NPOConfig(Section):
    """Options of `npo`."""

    key: ClassVar[str] = "unlearn.npo"

    beta: float = option(
        0.1, "Inverse temperature; near 0 the loss is that of gradient ascent.", above=0
    )
    over: Literal["example", "batch"] = option(
        "example", "Takes one ratio an example, or one a batch as published (D-11)."
    )


def npo(said: Said, *, beta: float, over: str) -> tuple[Term, ...]:
    """Negative preference optimisation, -2/beta log sigmoid(-beta log(p / p_reference)).

    The published code takes one ratio of a whole batch, of token means (D-11).

    Args:
        said: What the model says, with `reference`.
        beta: Inverse temperature. The larger it is, the sooner an answer stops counting once the
            model gives it less probability than the reference does; near 0 the loss is that of
            gradient ascent.
        over: `"example"`: an example's log-ratio is the sum over its tokens, and the loss the mean
            over examples; `"batch"`: the log-ratio is that of the batch's mean token.
    """
    nll, reference, counted = _example_ratios(said) if over == "example" else _batch_ratio(said)
    return (mean_of(2 / beta * jax.nn.softplus(beta * (reference - nll)), counted),)


def _example_ratios(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The model's and the reference's nll of the examples, and where they stand, all [B, S]."""
    assert said.reference is not None
    nll, _, first = by_example(said)
    # Segments are counted from 1 in packed rows; else a row is one example, and all are 0.
    places = jnp.maximum(said.questions - 1, 0)
    return nll, jnp.take_along_axis(said.reference, places, axis=1), first


def _batch_ratio(said: Said) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same of the batch's mean token, all [1, 1]."""
    *both, first = _example_ratios(said)
    count = jnp.maximum(jnp.sum(said.supervised), 1)
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
