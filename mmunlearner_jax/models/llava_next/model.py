"""LLaVA-NeXT: LLaVA's tower, projector and decoder; a picture is seen whole, and larger in tiles.

Axes: B examples, T tokens, I pictures of an example, M pictures of a batch, N tiles of a picture
(the base image first; zeros where unused), C channels, S pixels of a tile's edge, F image tokens of
an example (padded), D text features, V vocabulary.
Source: Liu et al. 2024; parity with `transformers.LlavaNextForConditionalGeneration`.
"""

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
from mmunlearner_jax.models.fields import Width
from mmunlearner_jax.models.llava.decoders import MistralConfig
from mmunlearner_jax.models.llava.model import (
    VISION_7B,
    LlavaConfig,
    LlavaFamily,
    LlavaFamilyConfig,
)
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.llava_next import tiles
from mmunlearner_jax.models.vision_language import merge


@dataclass(frozen=True, kw_only=True)
class LlavaNextConfig(LlavaFamilyConfig):
    """Sizes and options of LLaVA-NeXT.

    Attributes:
        image_grid_pinpoints: Heights and widths that the larger picture may have, in pixels.
    """

    model_type: ClassVar[str] = "llava_next"
    architecture: ClassVar[str] = "LlavaNextForConditionalGeneration"

    image_grid_pinpoints: tuple[tuple[Width, ...], ...] = (
        *((336, 672), (672, 336), (672, 672)),
        *((1008, 336), (336, 1008)),
    )

    def __post_init__(self):
        super().__post_init__()
        edge = self.vision.image_size
        for pinpoint in self.image_grid_pinpoints or ((),):
            if len(pinpoint) != 2 or any(size % edge for size in pinpoint):
                raise InputError(
                    f"image_grid_pinpoints: {list(pinpoint)} must be height and width, both"
                    f" multiples of vision_config.image_size={edge}"
                )
        wanted = "default" if self.vision.class_tokens else "full"
        if self.feature_select != wanted:
            raise InputError(
                f"vision_feature_select_strategy={self.feature_select!r} must be {wanted!r} with"
                f" {self.vision.model_type}: a tile's features must be those of its patches"
            )

    @property
    def side(self) -> int:
        """Height and width of a tile, in features."""
        return self.vision.image_size // self.vision.patch_size

    @property
    def slots(self) -> int:
        """Number of tiles N that a picture has room for: the most, and the base image."""
        edge = self.vision.image_size
        return 1 + max(high * wide for high, wide in self.image_grid_pinpoints) // edge**2

    def layout(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns the layout (see `tiles`) of a picture with a height and a width in pixels."""
        return tiles.layout(size, self.image_grid_pinpoints, self.vision.image_size, self.side)

    def picture_arrays(self, patches: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the arrays of one picture (see `VisionLanguageConfig`)."""
        edge = self.vision.image_size
        shape = (1, self.slots, self.vision.num_channels, edge, edge)
        return {
            "pixel_values": jax.ShapeDtypeStruct(shape, jnp.float32),
            "image_sizes": jax.ShapeDtypeStruct((1, 4), jnp.int32),
        }

    def image_tokens(self, patches: int) -> int:
        """Returns the largest number of image tokens of a picture, whatever `patches` is."""
        return tiles.most_tokens(self.image_grid_pinpoints, self.vision.image_size, self.side)

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "LlavaNext":
        """Makes a model with random parameters (see `VisionLanguageConfig`)."""
        return LlavaNext(self, mesh=mesh, rngs=rngs)

    @classmethod
    def llava_next_vicuna_7b(cls) -> "LlavaNextConfig":
        """The config of `llava-hf/llava-v1.6-vicuna-7b-hf`."""
        return cls(vision=ClipConfig(**VISION_7B), text=LlavaConfig.llava_1_5_7b().text)

    @classmethod
    def llava_next_vicuna_13b(cls) -> "LlavaNextConfig":
        """The config of `llava-hf/llava-v1.6-vicuna-13b-hf`."""
        return cls(vision=ClipConfig(**VISION_7B), text=LlavaConfig.llava_1_5_13b().text)

    @classmethod
    def llava_next_mistral_7b(cls) -> "LlavaNextConfig":
        """The config of `llava-hf/llava-v1.6-mistral-7b-hf`."""
        text = MistralConfig(
            vocab_size=32064,
            max_position_embeddings=32768,
            rms_norm_eps=1e-5,
            rope_theta=1e6,
            sliding_window=None,
        )
        return cls(vision=ClipConfig(**VISION_7B), text=text)


class NewLine(nnx.Module):
    """The feature of a new line, which ends every line of the larger picture."""

    def __init__(self, config: LlavaNextConfig, *, rngs: nnx.Rngs):
        shape = (config.text.hidden_size,)
        self.embedding = nnx.Param(layers.INIT(rngs.params(), shape), logical=("embed",))

    def __call__(self, features: jax.Array, here: jax.Array) -> jax.Array:
        """Replaces features [B, F, D] where `here` (bool [B, F])."""
        return jnp.where(
            here[..., None], self.embedding.get_value().astype(features.dtype), features
        )


class LlavaNext(LlavaFamily):
    """LLaVA-NeXT."""

    def __init__(self, config: LlavaNextConfig, *, mesh: Mesh | None = None, rngs: nnx.Rngs):
        self.image_newline = NewLine(config, rngs=rngs)
        super().__init__(config, mesh=mesh, rngs=rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        pixel_values: jax.Array | None = None,
        image_sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the next-token logits.

        Args:
            input_ids: Token ids, int [B, T].
            attention_mask: Attention mask, int or bool [B, T], 0 at padding (left or right); None:
                no padding.
            pixel_values: Tiles of all pictures in the order of their image tokens, float
                [M, N, C, S, S], as the processor returns them; or [B, I, N, C, S, S] from
                `group_pictures`.
            image_sizes: Heights and widths of the pictures, int [M, 2]; or their layouts (see
                `tiles`), int [B, I, 4], from `group_pictures`.

        Returns:
            Logits, float32 [B, T, V].

        Raises:
            InputError: Image tokens and pictures do not match. Under `jit` only shapes are checked,
                and the pictures must come from `group_pictures`.
        """
        pictures = self._checked(input_ids, pixel_values, image_sizes)
        return self._forward(input_ids, attention_mask, pictures)

    def vision_features(self, pixel_values: jax.Array, image_sizes: jax.Array) -> jax.Array:
        """Runs the tower, and takes the features of the image tokens in their order.

        Args:
            pixel_values: Tiles, float [B, I, N, C, S, S].
            image_sizes: Layouts of the pictures, int [B, I, 4].

        Returns:
            Array [B, F, vision features]; those of new lines and of unused places are arbitrary.
        """
        batch, pictures, slots, *tile = pixel_values.shape
        features = self.seen(pixel_values.reshape(batch, pictures * slots, *tile))
        found, _ = self._places(image_sizes)
        features = features.reshape(batch, -1, features.shape[-1])
        return jnp.take_along_axis(features, found[..., None], axis=1)

    def image_features(self, vision_features: jax.Array, image_sizes: jax.Array) -> jax.Array:
        """Maps [B, F, vision features] to features [B, F, D]; new lines get their own."""
        features = squares.run(self.multi_modal_projector, vision_features)
        return squares.run(self.image_newline, features, self._places(image_sizes)[1])

    def group_pictures(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Groups the pictures of a batch by example, and computes their layouts.

        Args:
            batch: Host arrays, as the processor or this method returns them.

        Returns:
            The batch with `pixel_values` [B, I, N, C, S, S] and `image_sizes` [B, I, 4], if there
            are pictures. I is the largest number of pictures of an example.

        Raises:
            InputError: Image tokens and pictures do not match.
        """
        pictures = batch.get("pixel_values"), batch.get("image_sizes")
        return {**batch, **self._grouped(batch["input_ids"], *pictures)}

    def _places(self, image_sizes):
        config, length = self.config, image_sizes.shape[1] * self.config.image_tokens(0)
        return tiles.places(image_sizes, config.side, config.slots, length)

    def _embed(self, input_ids, pixel_values=None, image_sizes=None, vision_features=None):
        x, matrix = self.language_model.embed(input_ids)
        if pixel_values is not None and image_sizes is not None:
            vision_features = self.vision_features(pixel_values, image_sizes)
        if vision_features is None or image_sizes is None:
            return x, matrix
        features = self.image_features(vision_features, image_sizes)
        return merge(x, features, input_ids == self.config.image_token_id), matrix

    def _checked(self, input_ids, pixel_values=None, image_sizes=None, vision_features=None):
        known = not any(isinstance(x, Tracer) for x in (input_ids, pixel_values, image_sizes))
        if vision_features is None:
            if known:
                return self._grouped(input_ids, pixel_values, image_sizes)
            return self._shaped(pixel_values, image_sizes, grouped=True)
        pictures = {"vision_features": vision_features, "image_sizes": image_sizes}
        _check_shapes(pictures, (3, (self.config.vision.hidden_size,)), (3, (4,)))
        if known:
            self._match(input_ids, np.asarray(image_sizes))
        return pictures

    def _shaped(self, pixel_values, image_sizes, *, grouped):
        """Returns the pictures by name, after a check of their shapes; {} if there are none."""
        if pixel_values is None and image_sizes is None:
            return {}
        vision = self.config.vision
        tile = (vision.num_channels, vision.image_size, vision.image_size)
        pictures: dict[str, Any] = {"pixel_values": pixel_values, "image_sizes": image_sizes}
        if grouped:
            _check_shapes(pictures, (6, (self.config.slots, *tile)), (3, (4,)))
        else:
            _check_shapes(pictures, (5, tile), (2, (2,)))
        pixels, sizes = (array.shape for array in pictures.values())
        if pixels[:-4] != sizes[:-1]:
            raise InputError(
                f"pixel_values: shape {pixels} and that of image_sizes, {sizes}, are not of the"
                " same pictures"
            )
        return pictures

    def _grouped(self, input_ids, pixel_values, image_sizes):
        """Returns the pictures grouped by example, checked, by name; {} if there are none."""
        grouped = image_sizes is not None and image_sizes.ndim == 3
        pictures = self._shaped(pixel_values, image_sizes, grouped=grouped)
        if grouped or not pictures:
            layouts = np.asarray(image_sizes) if grouped else np.zeros((len(input_ids), 0, 4), int)
            self._match(input_ids, layouts)
            return pictures
        sizes = np.asarray(image_sizes).tolist()
        layouts = [self.config.layout((high, wide)) for high, wide in sizes]
        layouts = np.array(layouts, np.int32).reshape(-1, 4)
        pixels, ids = np.asarray(pixel_values), np.asarray(input_ids)
        if (tiled := 1 + np.prod(layouts[:, :2], axis=1).max(initial=0)) > pixels.shape[1]:
            raise InputError(
                f"pixel_values: shape {pixels.shape} has {pixels.shape[1]} tiles for each picture,"
                f" but image_sizes need {tiled}; use the checkpoint's own processor"
            )
        ends = np.cumsum(np.sum(ids == self.config.image_token_id, axis=1))
        # A picture belongs to the first row that ends with its last token, or after it.
        own = np.searchsorted(ends, np.cumsum(tiles.tokens(layouts, self.config.side)))
        counts = np.bincount(np.minimum(own, len(ids) - 1), minlength=len(ids))
        places = np.arange(counts.max()) < counts[:, None]
        placed = np.zeros((*places.shape, 4), np.int32)
        placed[places] = layouts
        self._match(ids, placed)
        room = np.zeros((*places.shape, self.config.slots, *pixels.shape[2:]), pixels.dtype)
        room[places, : pixels.shape[1]] = pixels[:, : self.config.slots]
        return {"pixel_values": room, "image_sizes": placed}

    def _match(self, input_ids, layouts):
        """Refuses pictures with layouts int [B, I, 4] that do not match the image tokens."""
        held = np.sum(np.asarray(input_ids) == self.config.image_token_id, axis=1)
        needed = np.sum(tiles.tokens(layouts, self.config.side), axis=1)
        if len(held) != len(needed) or np.any(held != needed):
            raise InputError(
                f"input_ids hold {held.tolist()} image tokens per row, but the pictures of the rows"
                f" need {needed.tolist()}; give pictures and tokens as one processor made them"
            )


def _check_shapes(pictures: Mapping[str, Any], *wanted: tuple[int, tuple[int, ...]]) -> None:
    """Refuses arrays that lack the wanted number of axes, or the wanted last axes."""
    for (name, array), (ndim, last) in zip(pictures.items(), wanted, strict=True):
        shape = None if array is None else array.shape
        if shape is None or len(shape) != ndim or shape[-len(last) :] != last:
            raise InputError(
                f"{name}: shape {shape} must have {ndim} axes, the last {last}; under jit, give"
                " what group_pictures(batch) returns"
            )
