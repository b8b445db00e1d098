"""LLaVA-1.5: projected features of a vision tower replace the embeddings of the image tokens.

`LlavaFamily` is what LLaVA-NeXT shares with it: all but the way from pictures to image tokens.

Axes: B examples, T tokens, I pictures per example, N pictures of a batch, C channels, F features of
one picture, D text features, V vocabulary.
Source: Liu et al. 2023; parity with `transformers.LlavaForConditionalGeneration`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import layers, squares
from mmunlearner_jax.models.fields import Token
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.dinov2 import Dinov2Config
from mmunlearner_jax.models.llava.towers import TOWERS
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.vision_language import (
    VisionLanguageConfig,
    VisionLanguageModel,
    merge,
)


@dataclass(frozen=True, kw_only=True)
class LlavaFamilyConfig(VisionLanguageConfig):
    """Sizes and options of a model and of its computation.

    Attributes:
        architecture: Name of the model's class in transformers.
        vision: Sizes of the vision tower.
        feature_layer: Number of the vision tower's hidden state that is used: 0 are the embeddings,
            -1 the last layer's output.
        feature_select: `default` drops the first position, which is the class token where there is
            one; `full` keeps it.
        projector_act: Activation between the projector's two layers.
        projector_bias: Whether the projector's layers have a bias.
    """

    architecture: ClassVar[str]

    vision: ClipConfig | Dinov2Config  # or SigLIP's, which is nearly CLIP's
    image_token_id: Token = 32000
    feature_layer: int = -2
    feature_select: str = "default"
    projector_act: str = "gelu"
    projector_bias: bool = True

    def __post_init__(self):
        super().__post_init__()
        depth = self.vision.num_hidden_layers
        if not isinstance(self.feature_layer, int) or not -depth - 1 <= self.feature_layer <= depth:
            raise InputError(
                f"vision_feature_layer={self.feature_layer!r} is not supported; use a whole number"
                f" from {-depth - 1} to {depth}"
            )
        if self.feature_select not in ("default", "full"):
            raise InputError(
                f"vision_feature_select_strategy={self.feature_select!r} is not supported; use"
                " 'default' or 'full'"
            )
        layers.choose(layers.ACTIVATIONS, "projector_hidden_act", self.projector_act)

    @property
    def vision_depth(self) -> int:
        """Number of vision layers that are run."""
        return self.feature_layer % (self.vision.num_hidden_layers + 1)

    @property
    def tokens_per_image(self) -> int:
        """Number of features F of one picture."""
        return self.vision.num_positions - (self.feature_select == "default")


@dataclass(frozen=True, kw_only=True)
class LlavaConfig(LlavaFamilyConfig):
    """Sizes and options of LLaVA-1.5."""

    model_type: ClassVar[str] = "llava"
    architecture: ClassVar[str] = "LlavaForConditionalGeneration"

    def picture_arrays(self, patches: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the arrays of one picture (see `VisionLanguageConfig`)."""
        side = self.vision.image_size
        shape = (1, self.vision.num_channels, side, side)
        return {"pixel_values": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def image_tokens(self, patches: int) -> int:
        """Returns the number of image tokens of a picture, whatever `patches` is."""
        return self.tokens_per_image

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "Llava":
        """Makes a model with random parameters (see `VisionLanguageConfig`)."""
        return Llava(self, mesh=mesh, rngs=rngs)

    @classmethod
    def llava_1_5_7b(cls) -> "LlavaConfig":
        """The config of `llava-hf/llava-1.5-7b-hf`."""
        text = LlamaConfig(
            vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, pad_token_id=32001
        )
        return cls(vision=ClipConfig(**VISION_7B), text=text)

    @classmethod
    def llava_1_5_13b(cls) -> "LlavaConfig":
        """The config of `llava-hf/llava-1.5-13b-hf`."""
        small = cls.llava_1_5_7b()
        text = dataclasses.replace(
            small.text,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=40,
            num_attention_heads=40,
        )
        return dataclasses.replace(small, text=text)


# CLIP ViT-L/14 at 336 pixels.
VISION_7B: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


class Projector(nnx.Module):
    """Two linear layers that map vision features to text features."""

    def __init__(self, config: LlavaFamilyConfig, *, rngs: nnx.Rngs):
        d, self.act = config.text.hidden_size, config.projector_act

        def make(features_in, logical):
            return layers.linear(
                features_in,
                d,
                logical,
                bias=config.projector_bias,
                dtype=config.dtype,
                rngs=rngs,
            )

        self.linear_1 = make(config.vision.hidden_size, ("vision_embed", "mlp"))
        self.linear_2 = make(d, ("mlp", "embed"))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [B, I, F, vision features] to [B, I, F, D]."""
        return self.linear_2(layers.ACTIVATIONS[self.act](self.linear_1(features)))


class LlavaFamily(VisionLanguageModel):
    """A model with a vision tower for pictures of one size, a projector and a decoder."""

    def __init__(self, config: LlavaFamilyConfig, *, mesh: Mesh | None = None, rngs: nnx.Rngs):
        self.vision_tower = TOWERS[type(config.vision)](
            config.vision,
            depth=config.vision_depth,
            dtype=config.dtype,
            remat=config.remat,
            mesh=mesh,
            rngs=rngs,
        )
        self.multi_modal_projector = Projector(config, rngs=rngs)
        super().__init__(config, mesh=mesh, rngs=rngs)

    def seen(self, pixel_values: jax.Array) -> jax.Array:
        """Maps pictures [B, I, C, height, width] to [B, I, F, vision features]."""
        features = self.vision_tower(pixel_values)
        return features[..., 1:, :] if self.config.feature_select == "default" else features


class Llava(LlavaFamily):
    """LLaVA-1.5."""

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        pixel_values: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the next-token logits.

        Args:
            input_ids: Token ids, int [B, T].
            attention_mask: Attention mask, int or bool [B, T], 0 at padding (left or right); None:
                no padding.
            pixel_values: Pictures, float [N, C, height, width], in the order of their image tokens;
                or [B, I, C, height, width], where unused pictures are zeros.

        Returns:
            Logits, float32 [B, T, V].

        Raises:
            InputError: Image tokens and pictures do not match. Under `jit` only shapes are checked,
                because the tokens have no values yet.
        """
        pictures = self._checked(input_ids, pixel_values)
        return self._forward(input_ids, attention_mask, pictures)

    def vision_features(self, pixel_values: jax.Array) -> jax.Array:
        """Maps pictures [B, I, C, height, width] to [B, I, F, vision features]."""
        return self.seen(pixel_values)

    def image_features(self, pixel_values: jax.Array) -> jax.Array:
        """Maps pictures [B, I, C, height, width] to projected features [B, I, F, D]."""
        return squares.run(self.multi_modal_projector, self.vision_features(pixel_values))

    def group_pictures(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Groups the pictures of a batch by example.

        Args:
            batch: Host arrays; `pixel_values` is [N, C, height, width], or already grouped.

        Returns:
            The batch with `pixel_values` [B, I, C, height, width], where I is the largest number of
            pictures of an example.

        Raises:
            InputError: Image tokens and pictures do not match.
        """
        pictures = batch.get("pixel_values")
        if pictures is None or pictures.ndim == 5:
            return dict(batch)
        self._check_pictures(batch["input_ids"], pictures)
        tokens = np.sum(np.asarray(batch["input_ids"]) == self.config.image_token_id, axis=1)
        counts = tokens // self.config.tokens_per_image
        if np.any(tokens % self.config.tokens_per_image):
            raise InputError("pixel_values: a picture's image tokens are split between two rows")
        grouped = np.zeros((len(counts), counts.max(), *pictures.shape[1:]), pictures.dtype)
        grouped[np.arange(counts.max()) < counts[:, None]] = pictures
        return {**batch, "pixel_values": grouped}

    def _embed(self, input_ids, pixel_values=None, vision_features=None):
        x, matrix = self.language_model.embed(input_ids)
        if vision_features is not None:
            features = squares.run(self.multi_modal_projector, vision_features)
            return self._merged(input_ids, x, features), matrix
        if pixel_values is None:
            return x, matrix
        if pixel_values.ndim == 5:
            features = self.image_features(pixel_values)
            return self._merged(input_ids, x, features), matrix
        # Ungrouped pictures follow each other across rows: merge the batch as one long row.
        if squares.any_probed(nnx.state(self)):
            raise InputError("pixel_values: squares need grouped pictures: call group_pictures")
        features = self.image_features(pixel_values[None])
        merged = self._merged(input_ids.reshape(1, -1), x.reshape(1, -1, x.shape[-1]), features)
        return merged.reshape(x.shape), matrix

    def _merged(self, input_ids, x, features):
        features = features.reshape(len(features), -1, features.shape[-1])
        return merge(x, features, input_ids == self.config.image_token_id)

    def _checked(self, input_ids, pixel_values=None, vision_features=None):
        self._check_pictures(input_ids, pixel_values, vision_features)
        pictures = {"pixel_values": pixel_values, "vision_features": vision_features}
        return {name: x for name, x in pictures.items() if x is not None}

    def _check_pictures(self, input_ids, pixel_values, vision_features=None):
        """Refuses pictures that do not match the image tokens; under `jit`, wrong shapes only."""
        vision, each = self.config.vision, self.config.tokens_per_image
        if vision_features is not None:
            wanted = (each, vision.hidden_size)
            if vision_features.ndim != 4 or vision_features.shape[-2:] != wanted:
                raise InputError(
                    f"vision_features: shape {vision_features.shape} must be"
                    f" [examples, pictures, *{wanted}]"
                )
        elif pixel_values is not None:
            wanted = (vision.num_channels, vision.image_size, vision.image_size)
            if pixel_values.ndim not in (4, 5) or pixel_values.shape[-3:] != wanted:
                raise InputError(
                    f"pixel_values: shape {pixel_values.shape} must be [pictures, *{wanted}] or"
                    f" [examples, pictures, *{wanted}]"
                )
        if isinstance(input_ids, Tracer):
            return
        tokens = np.sum(np.asarray(input_ids) == self.config.image_token_id, axis=1)
        grouped = pixel_values if vision_features is None else vision_features
        if grouped is None or (grouped is pixel_values and grouped.ndim == 4):
            pictures = 0 if grouped is None else len(grouped)
            if tokens.sum() != pictures * each:
                raise InputError(
                    f"input_ids hold {tokens.sum()} image tokens, but {pictures} pictures need"
                    f" {pictures * each} ({each} each)"
                )
        elif np.any(tokens % each) or tokens.max() > grouped.shape[1] * each:
            raise InputError(
                f"input_ids hold {tokens.tolist()} image tokens per row; each number must be a"
                f" multiple of {each}, at most {grouped.shape[1] * each}"
            )
