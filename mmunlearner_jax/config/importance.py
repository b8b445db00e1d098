"""Sections `config.importance` and `config.mask`: which weights matter more for the forget set."""

import dataclasses
import re
from typing import ClassVar, Literal

from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import Section, option

PRESERVE = ("pictures", "text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreserveConfig(Section):
    """The preserve sets whose importances each module group is compared with."""

    key: ClassVar[str] = "importance.preserve"

    vision: tuple[str, ...] = option(("pictures",), "For the vision tower.", choices=PRESERVE)
    projector: tuple[str, ...] = option(("pictures",), "For the projector.", choices=PRESERVE)
    language: tuple[str, ...] = option(
        ("pictures", "text"), "For the language model.", choices=PRESERVE
    )

    def __post_init__(self):
        super().__post_init__()
        for group, sets in self.to_dict().items():
            if not sets:
                self.refuse(group, f"one or more of {', '.join(PRESERVE)}")

    @property
    def used(self) -> tuple[str, ...]:
        """The sets that some group is compared with; no other is measured."""
        named = {name for sets in self.to_dict().values() for name in sets}
        return tuple(name for name in PRESERVE if name in named)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathConfig(Section):
    """Points of an ascent path at which importances are measured; the path is then rewound."""

    key: ClassVar[str] = "importance.path"

    points: int = option(
        0,
        "Points over which importances are averaged.",
        least=0,
        special="0: the vanilla model alone, as published",
    )
    every: int = option(
        4, "Ascent steps to the first point, and from one to the next.", unit="steps", least=1
    )
    learning_rate: float = option(2e-4, "Learning rate of Adam on the path.", above=0)
    moves: tuple[str, ...] = option(
        GROUPS,
        "Module groups that move on the path, except those of `model.frozen`.",
        choices=GROUPS,
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.moves:
            self.refuse("moves", f"one or more of {', '.join(GROUPS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceConfig(Section):
    """Squared gradients on the forget set and on the preserve sets."""

    key: ClassVar[str] = "importance"

    fisher: Literal["example", "batch"] = option(
        "example", "Squares each example's gradient, or each batch's as published (D-06)."
    )
    batch_size: int = option(16, "Questions of a step.", unit="questions", least=1)
    pack: int = option(1, "Questions about one picture that share a row.", least=1)
    text_pack: int = option(1, "Questions in words that share a row.", least=1)
    examples: int = option(
        0,
        "Questions of each set at most, drawn by the seed.",
        unit="questions",
        least=0,
        special="0: all",
    )
    normalise: Literal["none", "group"] = option(
        "none", "Whether each set's importances are divided by their sum in each module group."
    )
    weights: Literal["none", "doubt"] = option(
        "none",
        "Weights of the examples' gradients: none, or 1 / (1 - p), p the mean probability of an"
        " answer's tokens, so that answers which the model is sure of count as much as others.",
    )
    path: PathConfig = option(PathConfig, "Where importances are measured.")
    preserve: PreserveConfig = option(PreserveConfig, "Preserve sets by module group.")

    def __post_init__(self):
        super().__post_init__()
        if self.weights == "doubt" and self.fisher == "batch":
            self.refuse("weights", "'none' with config.importance.fisher='batch'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskConfig(Section):
    """The saliency mask: True where the ratio of importances reaches the threshold."""

    key: ClassVar[str] = "mask"

    by: Literal["saliency", "random"] = option(
        "saliency",
        "What chooses weights: the ratio of importances, or chance, which needs no importances.",
    )
    density: float = option(
        0.3, "Fraction of every matrix that `random` chooses.", above=0, below=1
    )
    threshold: float = option(
        1.0, "Smallest ratio of forget to preserve importance at which a weight is chosen.", above=0
    )
    eps: float = option(
        0.0,
        "Constant added to both importances; above 0 it chooses weights that matter for neither"
        " set (D-05).",
        least=0,
    )
    cover: str = option(
        "",
        "Regular expression of the parameter names that have a mask.",
        special='"": the architecture\'s own',
    )
    uncovered: bool = option(
        False, "Value of the mask where `cover` matches no name; True as published (D-02)."
    )

    def __post_init__(self):
        super().__post_init__()
        try:
            re.compile(self.cover)
        except re.error as error:
            self.refuse("cover", f"a regular expression ({error})")
