"""SimNPO: NPO without a reference model, on the mean over each example's tokens.

Source: Fan et al. 2024, "Simplicity prevails" (arXiv 2410.07163), equation 4.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import Term, TokenScores, by_example, mean_of
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimNPOConfig(Section):
    """Options of `simnpo`."""

    key: ClassVar[str] = "unlearn.simnpo"

    beta: float = option(2.5, "Inverse temperature of an example's mean loss.", above=0)
    gamma: float = option(0.0, "Margin that an example's mean loss must keep above 0.", unit="nats")


def simnpo(scores: TokenScores, *, beta: float, gamma: float) -> tuple[Term, ...]:
    """Returns the loss of SimNPO, -2/beta log sigmoid(-beta/|y| log p - gamma), as one term.

    Args:
        scores: Scores of the supervised tokens.
        beta: Inverse temperature. It multiplies an example's mean loss per token, so it is larger
            than NPO's.
        gamma: Margin that an example's mean loss must keep above 0.
    """
    nll, lengths, first = by_example(scores)
    margin = beta * nll / jnp.maximum(lengths, 1) - gamma
    return (mean_of(2 / beta * jax.nn.softplus(-margin), first),)


METHOD = Method(
    "simnpo", "SimNPO", "#56b4e9", "P", forget=Loss(simnpo, SimNPOConfig), ascends=False
)
