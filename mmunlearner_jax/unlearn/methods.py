"""The methods, a row each: what forget steps raise or lower, and what retain steps lower.

docs/add-a-method.md adds one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import optax

from mmunlearner_jax.unlearn import objectives
from mmunlearner_jax.unlearn.objectives import OF_EXAMPLES, OF_TOKENS, Reference, Term, Terms
from mmunlearner_jax.unlearn.transforms import masked_ascent, masked_descent


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with what it needs.

    Attributes:
        terms: of `objectives`; it takes what a model says, and options.
        options: the part of `config.unlearn` that holds its options; empty: it has none.
        reference: what the vanilla model is asked beforehand.
    """

    terms: Callable[..., tuple[Term, ...]]
    options: str = ""
    reference: Reference | None = None

    def configured(self, config: Mapping[str, Any]) -> Terms:
        """The loss with its options of `config.unlearn`."""
        if not self.options:
            return self.terms
        return functools.partial(self.terms, **config[self.options])


@dataclasses.dataclass(frozen=True)
class Method:
    """What tells a method from the others; all of them run in the same loop.

    Attributes:
        forget: the loss of forget steps.
        by: the transform that raises it, or lowers it.
        retain: the loss of retain steps, which move all weights; None: there are none.
        masked: whether forget steps move the weights of the saliency mask alone, or all.
        refuses: whether the forget set's answers are refusals (`data.refusals`).
    """

    forget: Loss
    by: Callable[..., optax.GradientTransformationExtraArgs]
    retain: Loss | None = None
    masked: bool = False
    refuses: bool = False


ANSWERS = Loss(objectives.cross_entropy)
KL_MIN = Loss(objectives.kl_min, "kl_min", OF_TOKENS)
NPO = Loss(objectives.npo, "npo", OF_EXAMPLES)
SIMNPO = Loss(objectives.simnpo, "simnpo")

# By `config.unlearn.method`.
METHODS: Mapping[str, Method] = {
    "mmunlearner": Method(ANSWERS, masked_ascent, ANSWERS, masked=True),
    "ga": Method(ANSWERS, masked_ascent),
    "ga_diff": Method(ANSWERS, masked_ascent, ANSWERS),
    "kl_min": Method(ANSWERS, masked_ascent, KL_MIN),
    "npo": Method(NPO, masked_descent),
    "simnpo": Method(SIMNPO, masked_descent, ANSWERS),
    "idk_nll": Method(ANSWERS, masked_descent, ANSWERS, refuses=True),
}
