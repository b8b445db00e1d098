"""Section `config.align`: how pictures get the place of their captions in a pretrained decoder."""

import dataclasses
from typing import ClassVar, Literal

from mmunlearner_jax.config.descent import TrainingConfig
from mmunlearner_jax.config.jitter import AlignJitterConfig
from mmunlearner_jax.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignConfig(TrainingConfig):
    """Training of vision tower and projector, before fine-tuning, with the decoder held."""

    key: ClassVar[str] = "align"

    loss: Literal["embeddings", "caption"] = option(
        "embeddings",
        "What is learned: the decoder's embeddings of the caption's own words, those that most"
        " captions lack, without running the decoder; or the decoder's loss on the caption,"
        " LLaVA's first stage.",
    )
    batch: int = option(32, "Pictures of a step.", unit="pictures", least=1)
    contrast: float = option(
        1.0,
        "Weight of the term that tells a batch's captions apart (`embeddings`).",
        least=0,
        special="0: none",
    )
    temperature: float = option(20.0, "Factor of the cosines in that term.", above=0)
    jitter: AlignJitterConfig = option(AlignJitterConfig, "Random changes to the pictures.")
