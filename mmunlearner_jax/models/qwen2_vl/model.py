"""Qwen2-VL: a vision transformer, a merger and a Qwen2 decoder; pictures may have any size.

A clip (video) is a picture with several moments (`grids`). `QwenVL` is what Qwen2.5-VL shares: all
but the vision tower and how far moments are apart.

Axes: B examples, T tokens, I pictures of an example, P patches of an example, K numbers of one
patch, N patches and M pictures of a batch, F tokens of an example's pictures, D text features,
V vocabulary.
Source: Wang et al. 2024; parity with `transformers.Qwen2VLForConditionalGeneration`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import squares
from mmunlearner_jax.models.fields import Count, Length, Token, Width
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.qwen2_vl import grids, matching
from mmunlearner_jax.models.qwen2_vl.vision import (
    Merger,
    PatchesConfig,
    Qwen2Vision,
    Qwen2VisionConfig,
    Tower,
)
from mmunlearner_jax.models.vision_language import (
    VisionLanguageConfig,
    VisionLanguageModel,
    merge,
)


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """Sizes of Qwen2-VL's language model; names and defaults of `transformers.Qwen2VLTextConfig`.

    Attributes:
        mrope_section: Number of rotary frequencies for time, height and width.
    """

    model_type: ClassVar[str] = "qwen2_vl_text"
    absent: ClassVar[tuple[str, ...]] = ("head_dim", "attention_bias", "mlp_bias")

    vocab_size: Width = 152064
    hidden_size: Width = 8192
    intermediate_size: Width = 29568
    num_hidden_layers: Count = 80
    num_attention_heads: Count = 64
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Length = 32768
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e6
    bos_token_id: Token | None = 151643
    eos_token_id: Token | tuple[Token, ...] | None = 151645
    mrope_section: tuple[Width, ...] = (16, 24, 24)

    def __post_init__(self):
        super().__post_init__()
        if len(self.mrope_section) != 3 or 2 * sum(self.mrope_section) != self.head_size:
            raise InputError(
                f"text_config mrope_section={list(self.mrope_section)} must be three numbers whose"
                f" sum is half the head size, {self.head_size // 2}"
            )

    @property
    def qkv_bias(self) -> bool:
        """True: the projections to queries, keys and values always have a bias."""
        return True

    @property
    def sections(self) -> tuple[int, ...]:
        """Number of rotary frequencies for time, height and width."""
        return self.mrope_section


@dataclass(frozen=True, kw_only=True)
class QwenVLConfig(VisionLanguageConfig):
    """Sizes and options of a model and of its computation.

    Attributes:
        architecture: Name of the model's class in transformers.
        parts: The classes of `vision` and `text`.
        vision: Sizes of the vision tower.
        timed: Whether the time of a moment is absolute, so that the model takes seconds.
        video_token_id: The token of a clip.
        vision_start_token_id: The token before a picture's image tokens.
        vision_end_token_id: The token after a picture's image tokens.
    """

    architecture: ClassVar[str]
    parts: ClassVar[tuple[type[PatchesConfig], type[Qwen2Config]]]
    timed: ClassVar[bool] = False

    vision: PatchesConfig
    text: Qwen2Config
    image_token_id: Token = 151655
    video_token_id: Token = 151656
    vision_start_token_id: Token = 151652
    vision_end_token_id: Token = 151653

    def __post_init__(self):
        super().__post_init__()
        made, wanted = self.vision.out_features, self.text.hidden_size
        if made != wanted:
            raise InputError(
                f"vision_config.{self.vision.names[1]}={made} must equal the text's hidden_size,"
                f" {wanted}"
            )

    def picture_arrays(self, patches: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the arrays of one picture (see `VisionLanguageConfig`)."""
        if patches < 1:
            raise InputError(
                "config.model.patch_budgets is empty: set it to the numbers of patches of a row"
            )
        shape = (patches, math.prod(self.vision.patch_shape))
        arrays = {
            "pixel_values": jax.ShapeDtypeStruct(shape, jnp.float32),
            "image_grid_thw": jax.ShapeDtypeStruct((1, 3), jnp.int32),
        }
        if self.timed:
            arrays["second_per_grid_ts"] = jax.ShapeDtypeStruct((1,), jnp.float32)
        return arrays

    def image_tokens(self, patches: int) -> int:
        """Returns the number of image tokens of a picture with this number of patches."""
        return patches // self.vision.spatial_merge_size**2

    def pictured(self, ids: Any) -> Any:
        """Returns which tokens stand for a picture or clip (see `VisionLanguageConfig`)."""
        return (ids == self.image_token_id) | (ids == self.video_token_id)

    def steps(self, seconds: jax.Array | None) -> jax.Array | int:
        """Returns the positions from a moment to the next.

        Args:
            seconds: Seconds of a moment, float32 [B, I]; None: unknown.
        """
        return 1

    @classmethod
    def sized(
        cls,
        text: Qwen2Config,
        heads: tuple[int, int],
        hidden: int,
        intermediate: int,
        **vision: Any,
    ) -> Self:
        """Returns a published config.

        Args:
            text: The sizes of the decoder that are not given below.
            heads: Number of query heads and of key/value heads.
            hidden: Number of text features.
            intermediate: Number of features between the decoder's feed-forward layers.
            **vision: Sizes of the vision tower.
        """
        text = dataclasses.replace(
            text,
            num_attention_heads=heads[0],
            num_key_value_heads=heads[1],
            hidden_size=hidden,
            intermediate_size=intermediate,
            rms_norm_eps=1e-6,
        )
        kind = cls.parts[0]
        return cls(vision=kind(**{kind.names[1]: hidden}, **vision), text=text)


@dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig(QwenVLConfig):
    """Sizes and options of Qwen2-VL."""

    model_type: ClassVar[str] = "qwen2_vl"
    architecture: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    parts: ClassVar[tuple[type[PatchesConfig], type[Qwen2Config]]] = Qwen2VisionConfig, Qwen2Config

    vision: Qwen2VisionConfig

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "Qwen2VL":
        """Makes a model with random parameters (see `VisionLanguageConfig`)."""
        return Qwen2VL(self, mesh=mesh, rngs=rngs)

    @classmethod
    def qwen2_vl_2b(cls) -> "Qwen2VLConfig":
        """The config of `Qwen/Qwen2-VL-2B-Instruct`."""
        text = Qwen2Config(vocab_size=151936, num_hidden_layers=28, tie_word_embeddings=True)
        return cls.sized(text, (12, 2), 1536, 8960)

    @classmethod
    def qwen2_vl_7b(cls) -> "Qwen2VLConfig":
        """The config of `Qwen/Qwen2-VL-7B-Instruct`."""
        return cls.sized(Qwen2Config(num_hidden_layers=28), (28, 4), 3584, 18944)

    @classmethod
    def qwen2_vl_72b(cls) -> "Qwen2VLConfig":
        """The config of `Qwen/Qwen2-VL-72B-Instruct`."""
        return cls.sized(Qwen2Config(), (64, 8), 8192, 29568)


class QwenVL(VisionLanguageModel):
    """A model with pictures of any size, whose subclass names the vision tower."""

    tower: ClassVar[type[Tower]]

    def __init__(self, config: QwenVLConfig, *, mesh: Mesh | None = None, rngs: nnx.Rngs):
        self.visual = self.tower(
            config.vision, dtype=config.dtype, remat=config.remat, mesh=mesh, rngs=rngs
        )
        self.merger = Merger(config.vision, self.tower.norm, config.dtype, rngs)
        super().__init__(config, mesh=mesh, rngs=rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        pixel_values: jax.Array | None = None,
        image_grid_thw: jax.Array | None = None,
        **clips: jax.Array | None,
    ) -> jax.Array:
        """Returns the next-token logits.

        Args:
            input_ids: Token ids, int [B, T].
            attention_mask: Attention mask, int or bool [B, T], 0 at padding (left or right); None:
                no padding.
            pixel_values: Patches of all pictures in the order of their image tokens, float [N, K],
                as the processor returns them; or those of pictures and clips, [B, P, K], as
                `group_pictures` returns them.
            image_grid_thw: Grids of the pictures, int [M, 3], or [B, I, 3] from `group_pictures`.
            **clips: `pixel_values_videos` [N, K], `video_grid_thw` [M, 3] and `second_per_grid_ts`
                [M], as the processor returns them; or the last alone, [B, I], from
                `group_pictures`.

        Returns:
            Logits, float32 [B, T, V].

        Raises:
            InputError: Image tokens and pictures, or video tokens and clips, do not match. Under
                `jit` only shapes are checked, and the pictures must come from `group_pictures`.
        """
        pictures = self._checked(
            input_ids, pixel_values=pixel_values, image_grid_thw=image_grid_thw, **clips
        )
        return self._forward(input_ids, attention_mask, pictures)

    def vision_features(
        self,
        pixel_values: jax.Array,
        image_grid_thw: jax.Array,
        second_per_grid_ts: jax.Array | None = None,
    ) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to [B, P, vision features]."""
        return self.visual(pixel_values, image_grid_thw)

    def image_features(self, pixel_values: jax.Array, image_grid_thw: jax.Array) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to merged features [B, F, D]."""
        return squares.run(self.merger, self.vision_features(pixel_values, image_grid_thw))

    def group_pictures(
        self, batch: Mapping[str, Any], budgets: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Packs every example's pictures and clips into its own row of patches, see `grids.pack`.

        Args:
            batch: Host arrays, as the processor or this method returns them.
            budgets: Numbers of patches P that a row may have; steps are compiled once for each.

        Returns:
            The batch with `pixel_values` [B, P, K] and `image_grid_thw` [B, I, 3], if there are
            pictures or clips, and `second_per_grid_ts` [B, I], if there are clips and time is
            absolute. It is without `mm_token_type_ids`, which follow from the token ids.

        Raises:
            InputError: Image tokens and pictures do not match, or an example has more patches than
                the largest budget.
        """
        given = {name: array for name, array in batch.items() if name in matching.NAMES}
        others = batch.keys() - given.keys() - {"mm_token_type_ids"}
        grouped = matching.group(self.config, batch["input_ids"], budgets, **given)
        return {name: batch[name] for name in batch if name in others} | grouped

    def _embed(self, input_ids, pixel_values=None, image_grid_thw=None, vision_features=None, **_):
        x, matrix = self.language_model.embed(input_ids)
        if vision_features is not None:
            features = squares.run(self.merger, vision_features)
        elif pixel_values is not None and image_grid_thw is not None:
            features = self.image_features(pixel_values, image_grid_thw)
        else:
            return x, matrix
        return merge(x, features, self.config.pictured(input_ids)), matrix

    def _positions(
        self, input_ids, valid, image_grid_thw=None, second_per_grid_ts=None, **features
    ):
        if image_grid_thw is None:
            return super()._positions(input_ids, valid)
        here, steps = self.config.pictured(input_ids), self.config.steps(second_per_grid_ts)
        side = self.config.vision.spatial_merge_size
        return grids.rope_index(here, valid, image_grid_thw, side, steps)

    def _checked(self, input_ids, vision_features=None, **given):
        traced = any(isinstance(x, Tracer) for x in (input_ids, *given.values()))
        if vision_features is not None:
            ids = None if traced else input_ids
            return matching.seen(self.config, ids, vision_features, **given)
        if traced:
            return matching.shaped(self.config, 3, **given)
        return matching.group(self.config, input_ids, (), **given)


class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    tower = Qwen2Vision
