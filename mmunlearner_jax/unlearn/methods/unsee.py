"""Unsee: vision tower and projector alone unlearn; the decoder and all it says in words stay.

* Place: no step moves the language model. Every answer to a question without a picture is therefore
  the vanilla model's, bit for bit.
* Target: forget steps raise the mean logarithm of each example's loss. The gradient of the loss
  itself vanishes where the model is sure of an answer (p near 1), so ascent leaves those people
  alone whom the model knows best. The logarithm's is the loss's gradient divided by the loss (plus
  `floor`), which keeps its size there, and shrinks for people who are forgotten already.
* Anchor: retain steps also keep the features of retained pictures (`picture_features`).

No saliency mask is needed, so the stages `importance` and `mask` need not run.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import Term, TokenScores, by_example, mean_of
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnseeConfig(Section):
    """Options of `unsee`."""

    key: ClassVar[str] = "unlearn.unsee"

    floor: float = option(
        1e-3,
        "Added to an example's mean loss before its logarithm is taken.",
        unit="nats",
        above=0,
    )


def log_loss(scores: TokenScores, *, floor: float) -> tuple[Term, ...]:
    """Returns the mean over examples of log(mean loss per token + floor), as one term.

    Args:
        scores: Scores of the supervised tokens.
        floor: Constant in nats, above 0.
    """
    nll, lengths, first = by_example(scores)
    return (mean_of(jnp.log(nll / jnp.maximum(lengths, 1) + floor), first),)


METHOD = Method(
    "unsee",
    "Unsee",
    "#d62728",
    "*",
    forget=Loss(log_loss, UnseeConfig),
    moves=("vision", "projector"),
    anchor="picture_features",
)
