"""UNDIAL: distillation from the vanilla model, whose logit of the true token is lowered.

Source: Dong et al. 2024, "UNDIAL" (arXiv 2402.10052), with descent on the retain data.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import (
    OF_TOKENS,
    Term,
    TokenScores,
    supervised_tokens,
)
from mmunlearner_jax.unlearn.method import Loss, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class UndialConfig(Section):
    """Options of `undial`."""

    key: ClassVar[str] = "unlearn.undial"

    gamma: float = option(
        10.0,
        "How much the true token's logit is lowered in the target; from 13 on, rounding in float32"
        " would hide the target.",
        unit="nats",
        above=0,
        below=13,
    )


def undial(scores: TokenScores, *, gamma: float) -> tuple[Term, ...]:
    """Returns the mean over supervised tokens of KL(target || model), as one term.

    The target is the vanilla model's distribution with `gamma` subtracted from the logit of the
    true token y: t_v = p_v / Z for other tokens, t_y = exp(-gamma) p_y / Z. The divergence follows
    from KL(vanilla || model) and from both models' likelihoods of y.
    If 1 - p_y is below exp(-gamma), y is still the likeliest token of the target.

    Args:
        scores: Scores of the supervised tokens, with `kl` and `vanilla`.
        gamma: Difference of logits, above 0.
    """
    assert scores.kl is not None and scores.vanilla is not None
    true, others = jnp.exp(-scores.vanilla), -jnp.expm1(-scores.vanilla)  # p_y, 1 - p_y
    lowered = jnp.exp(-gamma) * true
    whole = others + lowered  # Z
    ahead = scores.nll - scores.vanilla  # log p_y of the vanilla model minus that of the model
    divergences = (scores.kl - true * ahead + lowered * (ahead - gamma)) / whole - jnp.log(whole)
    sums = jnp.sum(jnp.where(scores.supervised, divergences, 0), axis=1)
    return (Term(sums, supervised_tokens(scores)),)


METHOD = Method(
    "undial",
    "UNDIAL",
    "#17becf",
    "p",
    forget=Loss(undial, UndialConfig, OF_TOKENS),
    ascends=False,
)
