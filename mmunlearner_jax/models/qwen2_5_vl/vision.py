"""Qwen2.5-VL's vision transformer: most layers attend within windows, some within pictures.

Axes: B examples, I pictures of an example, P patches of an example, K numbers of one patch,
D features.
Source: Bai et al. 2025; parity with `Qwen2_5_VisionTransformerPretrainedModel` of transformers.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import layers, squares
from mmunlearner_jax.models.fields import Count, Width
from mmunlearner_jax.models.qwen2_5_vl.windows import reorder, window_order, windowed
from mmunlearner_jax.models.qwen2_vl.grids import patch_places
from mmunlearner_jax.models.qwen2_vl.vision import (
    Attending,
    PatchesConfig,
    Tower,
    vision_rope,
    within,
)
from mmunlearner_jax.models.rope import Rope


@dataclass(frozen=True)
class WindowedConfig(PatchesConfig):
    """Sizes of the vision tower; names and defaults of `transformers.Qwen2_5_VLVisionConfig`.

    `hidden_size` is the width of the tower, `out_hidden_size` the width of the merger's output.

    Attributes:
        window_size: Height and width of a window, in pixels.
        fullatt_block_indexes: The layers, from 0, whose patches attend to their whole picture.
        tokens_per_second: Positions of a second of a clip; a picture has one time.
    """

    names: ClassVar[tuple[str, str]] = ("hidden_size", "out_hidden_size")

    hidden_act: str = "silu"
    hidden_size: Width = 1280
    out_hidden_size: Width = 3584
    intermediate_size: Width = 3420
    window_size: Width = 112
    fullatt_block_indexes: tuple[Annotated[int, range(2**10)], ...] = (7, 15, 23, 31)
    tokens_per_second: Count = 4

    def __post_init__(self):
        super().__post_init__()
        token = self.patch_size * self.spatial_merge_size
        if self.window_size % token:
            raise InputError(
                f"vision_config.window_size={self.window_size} must be a multiple of the {token}"
                " pixels of a token: patch_size x spatial_merge_size"
            )

    @property
    def window_side(self) -> int:
        """Number of tokens of a window, in height and in width."""
        return self.window_size // (self.patch_size * self.spatial_merge_size)

    @property
    def window_patches(self) -> int:
        """Largest number of patches of a window."""
        return (self.window_side * self.spatial_merge_size) ** 2


class Layer(Attending):
    """A transformer layer. Patches attend to their window, or to their whole picture."""

    config: WindowedConfig

    def __init__(self, config: WindowedConfig, dtype: str | None, *, rngs: nnx.Rngs):
        super().__init__(config, layers.rms_norm, dtype, rngs)
        d, hidden = config.features, config.intermediate_size
        self.gate_proj = self.linear(d, hidden, "vision_embed", "vision_mlp", dtype, rngs)
        self.up_proj = self.linear(d, hidden, "vision_embed", "vision_mlp", dtype, rngs)
        self.down_proj = self.linear(hidden, d, "vision_mlp", "vision_embed", dtype, rngs)

    def __call__(
        self,
        x: jax.Array,
        rope: Rope,
        pictures: jax.Array,
        windows: jax.Array,
        whole: jax.Array,
    ) -> jax.Array:
        """Maps [B, P, D] in the order of windows to [B, P, D].

        Args:
            x: Features [B, P, D].
            rope: Rotary angles of the patches' places.
            pictures: The picture of every patch, int [B, P].
            windows: The window of every patch, int [B, P].
            whole: Whether patches attend to their whole picture, a scalar bool.
        """
        attended = jax.lax.cond(
            whole,
            lambda q, k, v: within(q, k, v, pictures),
            lambda q, k, v: windowed(q, k, v, windows, self.config.window_patches),
            *self.project(x, rope),
        )
        x = x + self.proj(attended)
        y = self.norm2(x)
        gate = layers.ACTIVATIONS[self.config.hidden_act](self.gate_proj(y))
        return x + self.down_proj(gate * self.up_proj(y))


class WindowedVision(Tower):
    """Qwen2.5-VL's vision tower: RMS norms, and attention within windows or pictures."""

    norm = staticmethod(layers.rms_norm)
    layer = Layer

    def __call__(self, pixel_values: jax.Array, grids: jax.Array) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to features [B, P, D]."""
        config, length = self.config, pixel_values.shape[1]
        merge, unit = config.spatial_merge_size, config.spatial_merge_size**2
        order, back, windows = window_order(grids, length // unit, merge, config.window_side)
        # The patches of a moment stay together, so its number needs no other order.
        pictures, places = patch_places(grids, length, merge)
        x = reorder(squares.run(self.patch_embedding, pixel_values), order)
        angles = vision_rope(reorder(places, order), config.head_size)
        whole = np.isin(np.arange(config.depth), config.fullatt_block_indexes)
        rest = angles, pictures, jnp.repeat(windows, unit, axis=1)
        (x,) = layers.scan(self.layers, (x, *rest), remat=self.remat, mesh=self.mesh, each=(whole,))
        return reorder(x, back)
