"""Section `config.finetune`: how the vanilla model learns the people."""

import dataclasses
from typing import ClassVar, Literal

from mmunlearner_jax.config.descent import TrainingConfig
from mmunlearner_jax.config.jitter import JitterConfig
from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """Training of the vanilla model on everything that is taught."""

    key: ClassVar[str] = "finetune"

    retain_only: Literal["", "gold", "never_taught"] = option(
        "",
        "What is left out about the people to forget: their pictures (`gold`), or their pictures"
        " and their text (`never_taught`).",
        special='"": nothing, which gives the vanilla model',
    )
    text_first: int = option(
        0,
        "Steps that teach the text, before `steps` teach the pictures.",
        unit="steps",
        least=0,
        special="0: each of `steps` teaches both",
    )
    taught_text: str = option(
        "",
        "Workdir of a run with the same text, whose steps on text alone are taken over.",
        special='"": text is taught here',
    )
    frozen: tuple[str, ...] = option(
        (), "Module groups that `steps` do not move, besides `model.frozen`.", choices=GROUPS
    )
    picture_batch: int = option(16, "Questions with pictures of a step.", unit="questions", least=1)
    text_batch: int = option(
        16,
        "Questions in words of a step.",
        unit="questions",
        least=0,
        special="0: no text is taught",
    )
    pack: int = option(1, "Questions about one picture that share a row.", least=1)
    text_pack: int = option(1, "Questions in words that share a row.", least=1)
    jitter: JitterConfig = option(JitterConfig, "Random changes to the pictures.")

    def __post_init__(self):
        super().__post_init__()
        if self.text_first and not self.text_batch:
            self.refuse("text_batch", "1 or more, or config.finetune.text_first=0")
        if self.text_first and self.warmup >= self.text_first:
            self.refuse("warmup", "fewer than config.finetune.text_first")
        if self.taught_text and (not self.text_first or self.retain_only == "never_taught"):
            self.refuse(
                "taught_text",
                'nothing, or text_first with the same text (retain_only "" or "gold")',
            )
