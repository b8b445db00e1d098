"""Controls: unlearning runs that each differ from the method's own run in one thing.

The difference in scores between a control and the method shows what that one thing contributes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.unlearn.control_masks import (
    Tree,
    global_random_mask,
    random_blocks,
    random_mask,
    top_mask,
    with_uncovered,
)
from mmunlearner_jax.unlearn.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Known:
    """What a control's mask may be made from, besides the mask of the run itself.

    Attributes:
        seed: Value of `config.seed`.
        groups: Module group of every array, a tree of strings with the structure of the mask.
        names: Hugging Face name of every array, likewise.
        movable: Returns a bool mask that is False for frozen weights and True elsewhere.
        covered: Returns a bool mask that is True for all weights that have a mask.
        forget: Returns the importance for the forget set, float32, 0 for frozen weights.
    """

    seed: int
    groups: Tree
    names: Tree
    movable: Callable[[], Tree]
    covered: Callable[[], Tree]
    forget: Callable[[], Tree]


def within(mask: Tree, known: Known, *groups: str) -> Tree:
    """Returns the mask, set to False outside the given module groups.

    Args:
        mask: Tree of bool arrays.
        known: Holds the module group of every array.
        *groups: Names of the module groups in which the mask is kept.
    """
    return jax.tree.map(lambda m, group: m & (group in groups), mask, known.groups)


NO_FORGET_TEXT = {"unlearn.forget_text": False}
ADAPTERS = {"unlearn.lora.rank": 8, "unlearn.lora.alpha": 64.0}
# A clipped gradient is shorter than Adam's update by about the factor `alpha`.
SGD = {"unlearn.forget_optimizer": "sgd", "unlearn.optimizers": 2, "unlearn.alpha": 500.0}
FACES = "vision", "projector"
# Averaged over the second and fourth step of ascent.
ON_PATH = {"importance.path.points": 2, "importance.path.every": 2}
DRAWN = {"unlearn.masked": "yes", "mask.by": "random"}


def own_mask(mask: Tree, _: Known) -> Tree:
    """Returns the mask of the run itself, unchanged."""
    return mask


@dataclasses.dataclass(frozen=True)
class Control:
    """A run with one change.

    Attributes:
        label: Name in tables.
        changes: Config values that differ, by dotted key.
        mask: Makes the control's mask from the run's own mask; None: the control has no mask.
        method: Name of the method; "": the method of the run.
        of_others: Whether importances are measured as if other people were to be forgotten.
    """

    label: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask: Callable[[Tree, Known], Tree] | None = own_mask
    method: str = ""
    of_others: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """All config values that differ, by dotted key, the method among them."""
        return {**self.changes, **({"unlearn.method": self.method} if self.method else {})}

    @property
    def of_masks(self) -> bool:
        """Whether the control changes the mask. A method without a mask ignores such a control."""
        return self.mask is not own_mask or self.remakes_mask

    @property
    def remakes_mask(self) -> bool:
        """Whether the control changes importances, or options of `config.mask`."""
        changed = (key.partition(".")[0] for key in self.changes)
        return self.of_others or not {"importance", "mask"}.isdisjoint(changed)


# The controls, by their name in `config.controls` and `config.compare.controls`.
CONTROLS: Mapping[str, Control] = {
    "no_mask": Control("All weights (with embeddings, norms, biases and head)", mask=None),
    "cover_only": Control(
        "All covered weights",
        mask=lambda mask, known: with_uncovered(known.covered(), mask, known.covered()),
    ),
    "random_mask": Control(
        "Random mask, as dense in every matrix",
        mask=lambda mask, known: random_mask(mask, known.seed),
    ),
    "global_random_mask": Control(
        "Random mask, as dense in all",
        mask=lambda mask, known: global_random_mask(mask, known.covered(), known.seed),
    ),
    "random_layers": Control(
        "Whole matrices at random, as many weights",
        mask=lambda mask, known: random_blocks(mask, known.covered(), known.names, known.seed),
    ),
    "other_people_mask": Control("Mask of other people", of_others=True),
    "retain_only_steps": Control("Retain steps alone", {"unlearn.forget_repeat": 0}),
    "sgd": Control("Ascent by SGD", SGD),
    "no_forget_text": Control("Without the forgotten people's text", NO_FORGET_TEXT),
    "forget_text": Control("With the forgotten people's text", {"unlearn.forget_text": True}),
    "no_mask_no_forget_text": Control("All weights, without that text", NO_FORGET_TEXT, mask=None),
    "vision_projector_no_mask": Control(
        "Vision and projector, no mask",
        mask=lambda _, known: within(known.movable(), known, *FACES),
    ),
    "mask_vision_projector": Control(
        "Vision and projector, masked",
        mask=lambda mask, known: within(mask, known, *FACES),
    ),
    "vision_alone": Control(
        "Vision and projector in all steps, no mask",
        {"unlearn.moves": FACES},
        mask=None,
    ),
    "vision_alone_masked": Control(
        "Vision and projector in all steps, masked", {"unlearn.moves": FACES}
    ),
    "mask_language": Control(
        "Language model, masked",
        mask=lambda mask, known: within(mask, known, "language"),
    ),
    "separate_states": Control("Separate optimizer states", {"unlearn.optimizers": 2}),
    "plain_importances": Control(
        "Plain importances, as published", {"importance.normalise": "none"}
    ),
    "batch_fisher": Control("Squares of batch gradients", {"importance.fisher": "batch"}),
    "forget_top": Control(
        "Top importance to forget",
        mask=lambda mask, known: top_mask(known.forget(), mask),
    ),
    "threshold_half": Control("Threshold 0.5", {"mask.threshold": 0.5}),
    "threshold_double": Control("Threshold 2", {"mask.threshold": 2.0}),
    "threshold_tenfold": Control("Threshold 10", {"mask.threshold": 10.0}),
    "path_mask": Control("Importances along an ascent path", ON_PATH),
    "doubt_mask": Control("Sure answers count as much", {"importance.weights": "doubt"}),
    "refreshed_mask": Control("Mask measured again every 4 forget steps", {"unlearn.refresh": 4}),
    "preconditioned": Control(
        "Ascent divided by importances", {"unlearn.forget_optimizer": "preconditioned"}
    ),
    "lora": Control("LoRA, masked", ADAPTERS),
    "lora_no_mask": Control("LoRA, no mask", ADAPTERS, mask=None),
    "ga": Control("Plain gradient ascent", mask=None, method="ga"),
    "unsee_no_anchor": Control("Unsee, without anchor", {"unlearn.anchor": "none"}, method="unsee"),
    "unsee_ascent": Control("Unsee, ascent of the loss", {"unlearn.target": "ga"}, method="unsee"),
    "unsee_everywhere": Control(
        "Unsee, in the language model, too", {"unlearn.moves": GROUPS}, method="unsee"
    ),
    "unsee_random_mask": Control("Unsee, random mask", DRAWN, method="unsee"),
    "unsee_path_mask": Control(
        "Unsee, mask of an ascent path",
        {**ON_PATH, "importance.path.moves": FACES, "unlearn.masked": "yes"},
        method="unsee",
    ),
    "unsee_preconditioned": Control(
        "Unsee, divided by importances",
        {"unlearn.forget_optimizer": "preconditioned"},
        method="unsee",
    ),
}


def control_of(name: str) -> Control:
    """Returns what a method or control of a comparison changes of the config."""
    return Control(name, method=name) if name in METHODS else CONTROLS[name]
