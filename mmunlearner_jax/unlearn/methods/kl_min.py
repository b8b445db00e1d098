"""KL-Min: gradient ascent on the forget set; retain steps also stay near the vanilla model.

Source: Maini et al. 2024, "TOFU" (arXiv 2401.06121).
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import (
    OF_TOKENS,
    Said,
    Term,
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
        "token", "Divides the summed divergences by tokens, or by examples as published (D-10)."
    )


def kl_min(said: Said, *, weight: float, over: str) -> tuple[Term, ...]:
    """Cross-entropy and KL(reference || model), the retain loss of KL-Min.

    The published code adds the divergences of all positions up and divides by the batch size alone,
    so that they outweigh the cross-entropy by as many as a row has tokens (D-10).

    Args:
        said: What the model says, with `kl`.
        weight: Factor of the divergence.
        over: `"token"`: its mean over supervised tokens; `"example"`: its sum over them, divided by
            the number of examples.
    """
    assert said.kl is not None
    divergences = weight * jnp.sum(said.kl * said.supervised, axis=1)
    if over == "token":
        counts = supervised_tokens(said)
    else:
        counts = jnp.sum(by_example(said)[2], axis=1)
    return *cross_entropy(said), Term(divergences, counts)


METHOD = Method(
    "kl_min", "KL minimisation", "#cc79a7", "s", retain=Loss(kl_min, KLMinConfig, OF_TOKENS)
)
