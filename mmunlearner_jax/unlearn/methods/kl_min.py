"""KL-Min: gradient ascent on the forget set; retain steps also stay near the vanilla model.

Source: Maini et al. 2024, "TOFU" (arXiv 2401.06121).
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import (
    OF_TOKENS,
    Term,
    TokenScores,
    by_example,
    cross_entropy,
    supervised_tokens,
)
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLMinConfig(Section):
    """Options of `kl_min`."""

    key: ClassVar[str] = "unlearn.kl_min"

    weight: float = option(1.0, "Weight of the divergence from the vanilla model.", above=0)
    over: Literal["token", "example"] = option(
        "token",
        "Divides the sum of the divergences by the number of tokens, or by the number of examples"
        " as published (D-10).",
    )


def kl_min(scores: TokenScores, *, weight: float, over: str) -> tuple[Term, ...]:
    """Returns the terms of the retain loss of KL-Min: cross-entropy and KL(reference || model).

    The published code sums the divergences of all positions and divides by the batch size alone.
    The divergence then outweighs the cross-entropy by a factor of the number of tokens in a row
    (D-10).

    Args:
        scores: Scores of the supervised tokens, with `kl`.
        weight: Factor of the divergence.
        over: `"token"` takes the divergence's mean over supervised tokens; `"example"` divides its
            sum by the number of examples.
    """
    assert scores.kl is not None
    divergences = weight * jnp.sum(scores.kl * scores.supervised, axis=1)
    if over == "token":
        counts = supervised_tokens(scores)
    else:
        counts = jnp.sum(by_example(scores)[2], axis=1)
    return *cross_entropy(scores), Term(divergences, counts)


METHOD = Method(
    "kl_min", "KL minimisation", "#cc79a7", "s", retain=Loss(kl_min, KLMinConfig, OF_TOKENS)
)
