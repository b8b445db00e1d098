"""Qwen2-VL's vision transformer: pictures of any size, packed into rows of patches.

Axes: B examples, I pictures of an example, P patches of an example, K numbers of one patch,
D features, F tokens of an example's pictures, N heads, H head size.
Source: Wang et al. 2024; parity with `Qwen2VisionTransformerPretrainedModel` of transformers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import attention, layers, squares
from mmunlearner_jax.models.fields import Count, Width
from mmunlearner_jax.models.qwen2_vl.grids import patch_places
from mmunlearner_jax.models.rope import Rope, rope, rotate

ROPE_THETA = 10000.0
_EPSILON = 1e-6


@dataclass(frozen=True)
class Qwen2VisionConfig:
    """Sizes of the vision tower; names and defaults of `transformers.Qwen2VLVisionConfig`.

    `embed_dim` is the width of the tower, `hidden_size` the width of the merger's output.
    """

    depth: Count = 32
    embed_dim: Width = 1280
    hidden_size: Width = 3584
    hidden_act: str = "quick_gelu"
    mlp_ratio: Count = 4
    num_heads: Count = 16
    in_channels: Count = 3
    patch_size: Count = 14
    spatial_merge_size: Count = 2
    temporal_patch_size: Count = 2

    def __post_init__(self):
        layers.choose(layers.ACTIVATIONS, "vision_config.hidden_act", self.hidden_act)
        for field in ("patch_size", "temporal_patch_size"):
            if not isinstance(getattr(self, field), int):
                raise InputError(f"vision_config.{field} must be one number: patches are square")
        if self.embed_dim % (4 * self.num_heads):
            raise InputError(
                f"vision_config.embed_dim={self.embed_dim} must be a multiple of 4 x"
                f" num_heads={self.num_heads}, because rotary positions rotate pairs of features"
                " along two axes"
            )

    @property
    def head_size(self) -> int:
        """Number of features of one head H."""
        return self.embed_dim // self.num_heads

    @property
    def patch_shape(self) -> tuple[int, int, int, int]:
        """Number of channels and frames, height and width of one patch."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size


def vision_rope(places: jax.Array, head_size: int) -> Rope:
    """Returns the cosines and sines of the rotary angles, float32 [B, P, 1, H / 2] each.

    Half of the pairs of features use the line of a patch, and the other half its column.

    Args:
        places: Line and column of every patch, int [B, P, 2].
        head_size: Number of features of one head H.
    """
    by_axis = (rope(places[..., axis], head_size // 2, ROPE_THETA) for axis in (0, 1))
    cos, sin = (jnp.concatenate(both, axis=-1) for both in zip(*by_axis, strict=True))
    return cos, sin


def _norm(config: Qwen2VisionConfig, dtype: str | None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layers.layer_norm(config.embed_dim, _EPSILON, "vision_embed", dtype=dtype, rngs=rngs)


class PatchEmbedding(nnx.Module):
    """A linear map from the numbers of a patch to features."""

    def __init__(self, config: Qwen2VisionConfig, dtype: str | None, *, rngs: nnx.Rngs):
        self.shape = config.patch_shape
        # A contraction instead of a convolution, for the same reason as in `llava.vision`.
        self.proj = nnx.LinearGeneral(
            self.shape,
            config.embed_dim,
            axis=(-4, -3, -2, -1),
            use_bias=False,
            dtype=dtype,
            kernel_init=layers.KERNEL_INIT,
            kernel_metadata={"logical": ("channels", "frames", "patch", "patch", "vision_embed")},
            rngs=rngs,
        )

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Maps [B, P, K] to [B, P, D]."""
        x = patches.reshape(*patches.shape[:2], *self.shape)
        return self.proj(x.astype(self.proj.kernel.dtype))


class Layer(nnx.Module):
    """A pre-norm transformer layer. The patches of one picture attend to each other."""

    def __init__(self, config: Qwen2VisionConfig, dtype: str | None, *, rngs: nnx.Rngs):
        d, hidden = config.embed_dim, config.embed_dim * config.mlp_ratio
        self.config = config

        def make(features_in, features_out, *logical):
            return layers.linear(
                features_in, features_out, logical, bias=True, dtype=dtype, rngs=rngs
            )

        self.norm1 = _norm(config, dtype, rngs)
        self.qkv = make(d, 3 * d, "vision_embed", "vision_heads")
        self.proj = make(d, d, "vision_heads", "vision_embed")
        self.norm2 = _norm(config, dtype, rngs)
        self.fc1 = make(d, hidden, "vision_embed", "vision_mlp")
        self.fc2 = make(hidden, d, "vision_mlp", "vision_embed")

    def __call__(self, x: jax.Array, rope: Rope, pictures: jax.Array) -> jax.Array:
        """Maps [B, P, D] to [B, P, D]; `pictures`, int [B, P], is the picture of every patch."""
        q, k, v = self._project(self.norm1(x))
        mask = pictures[:, :, None] == pictures[:, None, :]
        x = x + self.proj(attention.masked(rotate(q, rope), rotate(k, rope), v, mask))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(layers.ACTIVATIONS[self.config.hidden_act](y))

    def _project(self, x):
        """Maps x [B, P, D] to queries, keys and values [B, P, N, H]."""
        # The kernel is split by heads before the product. A split after it would gather the result
        # on every device of the tensor axis, and the kernel is smaller to move than the result.
        shape = 3, self.config.num_heads, self.config.head_size
        assert self.qkv.bias is not None
        bias = self.qkv.bias.get_value()
        dtype = self.qkv.dtype or jnp.result_type(x, bias)
        qkv = self.qkv.product(x.astype(dtype), *shape) + bias.astype(dtype).reshape(shape)
        return jnp.unstack(qkv, axis=2)


class Merger(nnx.Module):
    """Joins neighbouring patches and maps their features to one text feature."""

    def __init__(self, config: Qwen2VisionConfig, dtype: str | None, *, rngs: nnx.Rngs):
        joined = config.embed_dim * config.spatial_merge_size**2
        self.joined = joined

        def make(features_out, *logical):
            return layers.linear(joined, features_out, logical, bias=True, dtype=dtype, rngs=rngs)

        self.norm = _norm(config, dtype, rngs)
        self.linear_1 = make(joined, "vision_embed", "mlp")
        self.linear_2 = make(config.hidden_size, "mlp", "embed")

    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [B, P, vision features] to [B, F, D]; the patches of a token are contiguous."""
        x = self.norm(features).reshape(len(features), -1, self.joined)
        return self.linear_2(layers.ACTIVATIONS["gelu"](self.linear_1(x)))


class Qwen2Vision(nnx.Module):
    """The vision tower without its merger.

    Args:
        config: Sizes of the tower.
        dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a key of `layers.REMAT`.
        mesh: Devices that the examples are split over; None: one device.
        rngs: Random keys of the initial parameters.
    """

    def __init__(
        self,
        config: Qwen2VisionConfig,
        *,
        dtype: str | None,
        remat: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat, self.mesh = config, remat, mesh
        self.patch_embedding = PatchEmbedding(config, dtype, rngs=rngs)
        self.layers = layers.stack(lambda rngs: Layer(config, dtype, rngs=rngs), config.depth, rngs)

    def __call__(self, pixel_values: jax.Array, grids: jax.Array) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to features [B, P, D]."""
        config = self.config
        pictures, places = patch_places(grids, pixel_values.shape[1], config.spatial_merge_size)
        x = squares.run(self.patch_embedding, pixel_values)
        angles = vision_rope(places, config.head_size)
        return layers.scan(self.layers, x, angles, pictures, remat=self.remat, mesh=self.mesh)
