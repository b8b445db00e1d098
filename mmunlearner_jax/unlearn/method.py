"""The record that defines an unlearning method: its losses, and how its steps move weights."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import Section
from mmunlearner_jax.unlearn.losses import (
    Of,
    Reference,
    Term,
    Terms,
    cross_entropy,
    score_tokens,
)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with its options and the reference scores that it needs.

    Attributes:
        terms: The loss itself: a function of what `of` gives and, by keyword, of the options.
        options: Class of the section `config.unlearn.NAME`; None: the loss has no options.
        reference: Scores that the vanilla model computes before unlearning begins; None: the loss
            needs none.
        of: What the loss is a function of, given a model and a batch: scores of supervised tokens,
            or what the decoder is given of pictures (`scoring.image_tokens`).
    """

    terms: Callable[..., tuple[Term, ...]]
    options: type[Section] | None = None
    reference: Reference | None = None
    of: Of = score_tokens

    def configured(self, options: Section | None) -> Terms:
        """Returns the loss as a function of what `of` gives alone.

        Args:
            options: An instance of `self.options`; None where the loss has no options.
        """
        return functools.partial(self.terms, **options.to_dict()) if options else self.terms


ANSWERS = Loss(cross_entropy)


@dataclasses.dataclass(frozen=True)
class Method:
    """One method. All methods run in the same loop (`stages.unlearn.Unlearner`).

    Attributes:
        name: Value of `config.unlearn.method`.
        label: Name in tables and charts.
        color: Colour in charts, "#rrggbb".
        marker: Marker in charts, of Matplotlib.
        forget: Loss of the forget steps.
        retain: Loss of the retain steps, which no mask restricts; None: there are no retain steps.
        ascends: Whether forget steps raise their loss; otherwise they lower it.
        masked: Whether forget steps move only the weights that the saliency mask chooses.
        answers: Answers of the forget set: its own, refusals (`data.refusals`), or those of other
            people (`data.relabelling`).
        moves: Module groups that forget and retain steps move.
        anchor: Name of the anchor of the retain steps (`unlearn.anchors`); "": none.
        ahead: Steps of fine-tuning before each forget gradient (`unlearn.lookahead`); 0: none.
    """

    name: str
    label: str
    color: str
    marker: str
    forget: Loss = ANSWERS
    retain: Loss | None = ANSWERS
    ascends: bool = True
    masked: bool = False
    answers: Literal["own", "refusals", "strangers"] = "own"
    moves: tuple[str, ...] = GROUPS
    anchor: str = ""
    ahead: int = 0

    @property
    def options(self) -> type[Section] | None:
        """Class of the section `config.unlearn.NAME`; None: the method has no own options."""
        losses: tuple[Any, ...] = (self.forget, self.retain)
        return next((loss.options for loss in losses if loss and loss.options), None)
