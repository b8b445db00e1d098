"""Random changes to pictures while a stage trains (`data.pipeline.Jitter`)."""

import dataclasses
from typing import ClassVar

from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class JitterConfig(Section):
    """Random changes to the pictures of stage `finetune`; all 0: none."""

    key: ClassVar[str] = "finetune.jitter"

    shift: int = option(0, "Largest shift in each direction.", unit="pixels", least=0)
    gain: float = option(0.0, "Standard deviation of the factor around 1.", least=0)
    offset: float = option(0.0, "Standard deviation of the added constant.", least=0)
    noise: float = option(0.0, "Standard deviation of what is added to each pixel.", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignJitterConfig(JitterConfig):
    """Random changes to the pictures of stage `align`; all 0: none."""

    key: ClassVar[str] = "align.jitter"
