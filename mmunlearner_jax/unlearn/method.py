"""What tells one unlearning method from another: a record of its losses and of how they move."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from mmunlearner_jax.options import Section
from mmunlearner_jax.unlearn.losses import Reference, Term, Terms, cross_entropy


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with what it needs.

    Attributes:
        terms: The loss: a function of `losses.Said` and of the options, by name.
        options: Section `config.unlearn.NAME` of the options; None: the loss has none.
        reference: What the vanilla model is asked before anything moves; None: nothing.
    """

    terms: Callable[..., tuple[Term, ...]]
    options: type[Section] | None = None
    reference: Reference | None = None

    def configured(self, options: Section | None) -> Terms:
        """Returns the loss as a function of `losses.Said` alone.

        Args:
            options: An instance of `self.options`; None where the loss has none.
        """
        return functools.partial(self.terms, **options.to_dict()) if options else self.terms


ANSWERS = Loss(cross_entropy)


@dataclasses.dataclass(frozen=True)
class Method:
    """One method; all methods run in the same loop (`unlearn.loop`).

    Attributes:
        name: Value of `config.unlearn.method`.
        label: Name in tables and charts.
        color: Colour in charts, "#rrggbb".
        marker: Marker in charts, of Matplotlib.
        forget: Loss of the forget steps.
        retain: Loss of the retain steps, which move all weights; None: there are no retain steps.
        ascends: Whether forget steps raise their loss; otherwise they lower it.
        masked: Whether forget steps move the weights of the saliency mask alone.
        refuses: Whether the forget set's answers are replaced by refusals (`data.refusals`).
    """

    name: str
    label: str
    color: str
    marker: str
    forget: Loss = ANSWERS
    retain: Loss | None = ANSWERS
    ascends: bool = True
    masked: bool = False
    refuses: bool = False

    @property
    def options(self) -> type[Section] | None:
        """Section `config.unlearn.NAME` of the method's own options; None: it has none."""
        losses: tuple[Any, ...] = (self.forget, self.retain)
        return next((loss.options for loss in losses if loss and loss.options), None)
