"""Qwen2.5-VL: Qwen2-VL's decoder, merger and pictures with another vision tower.

Its positions in time are absolute (`tokens_per_second`), which matters for clips only: the tokens
of a picture have one time, so the positions of pictures and text are those of Qwen2-VL.
Source: Bai et al. 2025; parity with `transformers.Qwen2_5_VLForConditionalGeneration`.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.models.fields import Length
from mmunlearner_jax.models.qwen2_5_vl.vision import WindowedConfig, WindowedVision
from mmunlearner_jax.models.qwen2_vl.model import Qwen2Config, QwenVL, QwenVLConfig
from mmunlearner_jax.models.qwen2_vl.vision import PatchesConfig


@dataclass(frozen=True)
class Qwen2_5Config(Qwen2Config):
    """Sizes of the language model; names and defaults of `transformers.Qwen2_5_VLTextConfig`."""

    model_type: ClassVar[str] = "qwen2_5_vl_text"


@dataclass(frozen=True, kw_only=True)
class Qwen2_5VLConfig(QwenVLConfig):
    """Sizes and options of Qwen2.5-VL."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    parts: ClassVar[tuple[type[PatchesConfig], type[Qwen2Config]]] = WindowedConfig, Qwen2_5Config
    timed: ClassVar[bool] = True

    vision: WindowedConfig
    text: Qwen2_5Config

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "Qwen2_5VL":
        """Makes a model with random parameters (see `VisionLanguageConfig`)."""
        return Qwen2_5VL(self, mesh=mesh, rngs=rngs)

    def steps(self, seconds: jax.Array | None) -> jax.Array | int:
        """Returns the positions from a moment to the next; a moment of unknown time is a second."""
        each = self.vision.tokens_per_second
        return each if seconds is None else each * seconds

    @classmethod
    def qwen2_5_vl_3b(cls) -> "Qwen2_5VLConfig":
        """The config of `Qwen/Qwen2.5-VL-3B-Instruct`."""
        text = Qwen2_5Config(
            vocab_size=151936,
            num_hidden_layers=36,
            max_position_embeddings=_POSITIONS,
            tie_word_embeddings=True,
        )
        return cls.sized(text, (16, 2), 2048, 11008, tokens_per_second=2)

    @classmethod
    def qwen2_5_vl_7b(cls) -> "Qwen2_5VLConfig":
        """The config of `Qwen/Qwen2.5-VL-7B-Instruct`."""
        text = Qwen2_5Config(num_hidden_layers=28, max_position_embeddings=_POSITIONS)
        return cls.sized(text, (28, 4), 3584, 18944, tokens_per_second=2)


_POSITIONS: Length = 128000


class Qwen2_5VL(QwenVL):
    """Qwen2.5-VL."""

    tower = WindowedVision
