"""Section `config.evaluate`: what is asked, how, and how answers are decoded."""

import dataclasses
from typing import ClassVar, Literal

from mmunlearner_jax.data.abilities import ABILITIES
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig(Section):
    """Greedy decoding."""

    key: ClassVar[str] = "evaluate.decode"

    batch_size: int = option(16, "Questions answered at once.", unit="questions", least=1)
    max_new_tokens: int = option(50, "Longest answer.", unit="tokens", least=1)
    weights: Literal["mesh", "heads"] = option(
        "mesh",
        "How weights are split over devices that answer: as `config.mesh` says; or by heads, as far"
        " as devices divide them, and copied over the others, so that no token gathers weights.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Section):
    """The scored questions."""

    key: ClassVar[str] = "evaluate"

    protocol: Literal["plain", "strict", "released"] = option(
        "strict",
        "How questions are put and multiple choice is scored: the question alone; the published"
        " prompt, by likelihood; or the published prompt and parser.",
    )
    shots: Literal[0, 1] = option(0, "Solved questions that are shown before each (MLLMU-Bench).")
    splits: tuple[str, ...] = option((), "Splits that are asked.", special="(): all")
    photos_per_person: int = option(
        1,
        "Photographs of each of the others, and unseen ones of everybody, at most.",
        least=0,
        special="0: all",
    )
    most_questions: int = option(
        0,
        "Questions of each split, modality and task at most, drawn once for all seeds.",
        unit="questions",
        least=0,
        special="0: all",
    )
    general: tuple[str, ...] = option(
        (), "Sets of questions about general ability that are asked, too.", choices=tuple(ABILITIES)
    )
    general_files: str = option(
        "", "Folder of the files of these sets, or hf://datasets/OWNER/NAME@REVISION."
    )
    reference: str = option(
        "",
        "Workdir of an evaluated run with `finetune.retain_only`, for forget quality.",
        special='"": none',
    )
    decode: DecodeConfig = option(DecodeConfig, "Decoding.")

    def __post_init__(self):
        super().__post_init__()
        if self.shots and self.protocol == "plain":
            self.refuse("shots", "0, or the protocol 'strict' or 'released'")
        if len({*self.general}) < len(self.general):
            self.refuse("general", "each set once")
        if self.general and not self.general_files:
            self.refuse("general_files", "the folder of the sets in config.evaluate.general")
