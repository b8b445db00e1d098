"""Qwen2-VL's vision transformer: pictures of any size, packed into rows of patches.

Qwen2.5-VL builds on the same patches, projections to queries, keys and values, and merger.

Axes: B examples, I pictures of an example, P patches of an example, K numbers of one patch,
D features, F tokens of an example's pictures, N heads, H head size.
Source: Wang et al. 2024; parity with `Qwen2VisionTransformerPretrainedModel` of transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

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
EPSILON = 1e-6


@dataclass(frozen=True)
class PatchesConfig:
    """Sizes that the vision towers of Qwen2-VL and of its successors share.

    Attributes:
        names: The fields that hold the width of the tower and of the merger's output.
    """

    names: ClassVar[tuple[str, str]]

    depth: Count = 32
    num_heads: Count = 16
    in_channels: Count = 3
    patch_size: Count = 14
    spatial_merge_size: Count = 2
    temporal_patch_size: Count = 2
    hidden_act: str = "quick_gelu"

    def __post_init__(self):
        layers.choose(layers.ACTIVATIONS, "vision_config.hidden_act", self.hidden_act)
        for field in ("patch_size", "temporal_patch_size"):
            if not isinstance(getattr(self, field), int):
                raise InputError(f"vision_config.{field} must be one number: patches are square")
        if self.features % (4 * self.num_heads):
            raise InputError(
                f"vision_config.{self.names[0]}={self.features} must be a multiple of 4 x"
                f" num_heads={self.num_heads}, because rotary positions rotate pairs of features"
                " along two axes"
            )

    @property
    def features(self) -> int:
        """Number of features of the tower D."""
        return getattr(self, self.names[0])

    @property
    def out_features(self) -> int:
        """Number of features of the merger's output."""
        return getattr(self, self.names[1])

    @property
    def head_size(self) -> int:
        """Number of features of one head H."""
        return self.features // self.num_heads

    @property
    def patch_shape(self) -> tuple[int, int, int, int]:
        """Number of channels and frames, height and width of one patch."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size


@dataclass(frozen=True)
class Qwen2VisionConfig(PatchesConfig):
    """Sizes of the vision tower; names and defaults of `transformers.Qwen2VLVisionConfig`.

    `embed_dim` is the width of the tower, `hidden_size` the width of the merger's output.
    """

    names: ClassVar[tuple[str, str]] = ("embed_dim", "hidden_size")

    embed_dim: Width = 1280
    hidden_size: Width = 3584
    mlp_ratio: Count = 4


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


class PatchEmbedding(nnx.Module):
    """A linear map from the numbers of a patch to features."""

    def __init__(self, config: PatchesConfig, dtype: str | None, *, rngs: nnx.Rngs):
        self.shape = config.patch_shape
        # A contraction instead of a convolution, for the same reason as in `llava.vision`.
        self.proj = nnx.LinearGeneral(
            self.shape,
            config.features,
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


def within(q: jax.Array, k: jax.Array, v: jax.Array, groups: jax.Array) -> jax.Array:
    """Computes attention within groups of patches.

    Args:
        q: Queries [B, P, N, H].
        k: Keys [B, P, N, H].
        v: Values [B, P, N, H].
        groups: The group of every patch, int [B, P].

    Returns:
        The attended values [B, P, N * H].
    """
    return attention.masked(q, k, v, groups[:, :, None] == groups[:, None, :])


class Attending(nnx.Module):
    """The part of a pre-norm layer that all towers share: norms, and projections to heads.

    Args:
        config: Sizes of the tower.
        norm: Function that makes a norm: `layers.layer_norm` or `layers.rms_norm`.
        dtype: Dtype of the computation; None: that of the parameters.
        rngs: Random keys of the initial parameters.
    """

    def __init__(
        self, config: PatchesConfig, norm: Callable[..., Any], dtype: str | None, rngs: nnx.Rngs
    ):
        d, self.config = config.features, config
        self.norm1 = norm(d, EPSILON, "vision_embed", dtype=dtype, rngs=rngs)
        self.qkv = self.linear(d, 3 * d, "vision_embed", "vision_heads", dtype, rngs)
        self.proj = self.linear(d, d, "vision_heads", "vision_embed", dtype, rngs)
        self.norm2 = norm(d, EPSILON, "vision_embed", dtype=dtype, rngs=rngs)

    @staticmethod
    def linear(features_in, features_out, name_in, name_out, dtype, rngs) -> layers.Linear:
        """Returns a linear layer with bias, whose axes have these logical names."""
        return layers.linear(
            features_in, features_out, (name_in, name_out), bias=True, dtype=dtype, rngs=rngs
        )

    def project(self, x: jax.Array, rope: Rope) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps x [B, P, D] to rotated queries and keys, and values, [B, P, N, H] each."""
        x = self.norm1(x)
        # The kernel is split by heads before the product. A split after it would gather the result
        # on every device of the tensor axis, and the kernel is smaller to move than the result.
        shape = 3, self.config.num_heads, self.config.head_size
        assert self.qkv.bias is not None
        bias = self.qkv.bias.get_value()
        dtype = self.qkv.dtype or jnp.result_type(x, bias)
        qkv = self.qkv.product(x.astype(dtype), *shape) + bias.astype(dtype).reshape(shape)
        q, k, v = jnp.unstack(qkv, axis=2)
        return rotate(q, rope), rotate(k, rope), v


class Layer(Attending):
    """A transformer layer. The patches of a picture, or of a moment, attend to each other."""

    def __init__(self, config: Qwen2VisionConfig, dtype: str | None, *, rngs: nnx.Rngs):
        super().__init__(config, layers.layer_norm, dtype, rngs)
        d, hidden = config.features, config.features * config.mlp_ratio
        self.fc1 = self.linear(d, hidden, "vision_embed", "vision_mlp", dtype, rngs)
        self.fc2 = self.linear(hidden, d, "vision_mlp", "vision_embed", dtype, rngs)

    def __call__(self, x: jax.Array, rope: Rope, pictures: jax.Array) -> jax.Array:
        """Maps [B, P, D] to [B, P, D]; `pictures`, int [B, P], is the picture of every patch."""
        x = x + self.proj(within(*self.project(x, rope), pictures))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(layers.ACTIVATIONS[self.config.hidden_act](y))


class Merger(nnx.Module):
    """Joins neighbouring patches and maps their features to one text feature.

    The arguments are those of `Attending`.
    """

    def __init__(
        self, config: PatchesConfig, norm: Callable[..., Any], dtype: str | None, rngs: nnx.Rngs
    ):
        joined = config.features * config.spatial_merge_size**2
        self.joined = joined

        def make(features_out, *logical):
            return layers.linear(joined, features_out, logical, bias=True, dtype=dtype, rngs=rngs)

        self.norm = norm(config.features, EPSILON, "vision_embed", dtype=dtype, rngs=rngs)
        self.linear_1 = make(joined, "vision_embed", "mlp")
        self.linear_2 = make(config.out_features, "mlp", "embed")

    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [B, P, vision features] to [B, F, D]; the patches of a token are contiguous."""
        x = self.norm(features).reshape(len(features), -1, self.joined)
        return self.linear_2(layers.ACTIVATIONS["gelu"](self.linear_1(x)))


class Tower(nnx.Module):
    """A vision tower without its merger.

    Args:
        config: Sizes of the tower.
        dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a key of `layers.REMAT`.
        mesh: Devices that the examples are split over; None: one device.
        rngs: Random keys of the initial parameters.
    """

    norm: ClassVar[Callable[..., Any]]
    layer: ClassVar[Callable[..., Attending]]

    def __init__(
        self,
        config: Any,
        *,
        dtype: str | None,
        remat: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat, self.mesh = config, remat, mesh
        self.patch_embedding = PatchEmbedding(config, dtype, rngs=rngs)
        self.layers = layers.stack(
            lambda rngs: self.layer(config, dtype, rngs=rngs), config.depth, rngs
        )

    def __call__(self, pixel_values: jax.Array, grids: jax.Array) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to features [B, P, D]."""
        raise NotImplementedError


class Qwen2Vision(Tower):
    """Qwen2-VL's vision tower: layer norms, and attention within pictures."""

    norm = staticmethod(layers.layer_norm)
    layer = Layer

    def __call__(self, pixel_values: jax.Array, grids: jax.Array) -> jax.Array:
        """Maps patches [B, P, K] with grids int [B, I, 3] to features [B, P, D]."""
        config = self.config
        pictures, places = patch_places(grids, pixel_values.shape[1], config.spatial_merge_size)
        x = squares.run(self.patch_embedding, pixel_values)
        angles = vision_rope(places, config.head_size)
        return layers.scan(self.layers, (x, angles, pictures), remat=self.remat, mesh=self.mesh)[0]
