"""Runs that differ from a method's in one thing each, so that everything gets only its due."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mmunlearner_jax.unlearn.mask import Tree, random_mask, top_mask


@dataclasses.dataclass(frozen=True)
class Known:
    """What a control's mask may be made of, beside the mask of the run itself.

    Attributes:
        seed: Of the run.
        groups: Module group of every array, a tree like the mask.
        movable: Makes a mask that is True but where weights are frozen.
        forget: Reads the importance for the forget set, 0 where weights are frozen.
    """

    seed: int
    groups: Tree
    movable: Callable[[], Tree]
    forget: Callable[[], Tree]


def within(mask: Tree, known: Known, *groups: str) -> Tree:
    """The mask, False outside some module groups."""
    return jax.tree.map(lambda m, group: m & (group in groups), mask, known.groups)


NO_FORGET_TEXT = {"unlearn.forget_text": False}
ADAPTERS = {"unlearn.lora.rank": 8, "unlearn.lora.alpha": 64.0}
FACES = "vision", "projector"


def own_mask(mask: Tree, _: Known) -> Tree:
    """The mask of the run."""
    return mask


@dataclasses.dataclass(frozen=True)
class Control:
    """One change.

    Attributes:
        label: For tables.
        changes: Values of the config by dotted keys.
        mask: Makes the mask of the run's own; None: there is none.
        method: The method; empty: the run's own.
    """

    label: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask: Callable[[Tree, Known], Tree] | None = own_mask
    method: str = ""

    @property
    def of_masks(self) -> bool:
        """Whether it is another mask that it changes, which a method without one ignores."""
        return self.mask is not own_mask or self.remakes_mask

    @property
    def remakes_mask(self) -> bool:
        """Whether importances or the mask's own values are others."""
        return any(key.startswith(("importance.", "mask.")) for key in self.changes)


# By name in `config.controls` and `config.compare`.
CONTROLS: Mapping[str, Control] = {
    "no_mask": Control("No mask", mask=None),
    "random_mask": Control(
        "Random mask of equal density",
        mask=lambda mask, known: random_mask(mask, known.seed),
    ),
    "no_forget_text": Control("Without the forgotten people's text", NO_FORGET_TEXT),
    "no_mask_no_forget_text": Control("No mask and without that text", NO_FORGET_TEXT, mask=None),
    "vision_projector_no_mask": Control(
        "Vision and projector, no mask",
        mask=lambda _, known: within(known.movable(), known, *FACES),
    ),
    "mask_vision_projector": Control(
        "Vision and projector, masked",
        mask=lambda mask, known: within(mask, known, *FACES),
    ),
    "mask_language": Control(
        "Language model, masked",
        mask=lambda mask, known: within(mask, known, "language"),
    ),
    "separate_states": Control("Separate optimizer states", {"unlearn.optimizers": 2}),
    "plain_importances": Control("Plain importances", {"importance.normalise": "none"}),
    "batch_fisher": Control("Squares of batch gradients", {"importance.fisher": "batch"}),
    "forget_top": Control(
        "Top importance to forget",
        mask=lambda mask, known: top_mask(known.forget(), mask),
    ),
    "threshold_half": Control("Threshold 0.5", {"mask.threshold": 0.5}),
    "threshold_double": Control("Threshold 2", {"mask.threshold": 2.0}),
    "threshold_tenfold": Control("Threshold 10", {"mask.threshold": 10.0}),
    "lora": Control("LoRA, masked", ADAPTERS),
    "lora_no_mask": Control("LoRA, no mask", ADAPTERS, mask=None),
    "ga": Control("Plain gradient ascent", mask=None, method="ga"),
}
