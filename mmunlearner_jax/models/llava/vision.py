"""The CLIP vision transformer as LLaVA uses it: it returns hidden states and pools nothing.

`siglip.py` and `dinov2.py` build on its parts.

Axes: B examples, I pictures per example, C channels, P positions (class token first), D features.
The example axis always comes first, because `squares` needs it there.
Source: Radford et al. 2021; parity with `transformers.CLIPVisionModel`.
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
from mmunlearner_jax.weights.table import CONV, Row, dense, norm

NAME, LAYER = "model.vision_tower", "model.vision_tower.encoder.layers.{layer}"

ROWS = (
    Row(f"{NAME}.embeddings.class_embedding", "vision_tower.embeddings.class_embedding"),
    Row(
        f"{NAME}.embeddings.patch_embedding.weight",
        "vision_tower.embeddings.patch_embedding.kernel",
        CONV,
    ),
    Row(
        f"{NAME}.embeddings.position_embedding.weight", "vision_tower.embeddings.position_embedding"
    ),
    *norm(f"{NAME}.pre_layrnorm", "vision_tower.embeddings.pre_norm"),
    *norm(f"{LAYER}.layer_norm1", "vision_tower.layers.layer_norm1"),
    *dense(f"{LAYER}.self_attn.q_proj", "vision_tower.layers.q_proj"),
    *dense(f"{LAYER}.self_attn.k_proj", "vision_tower.layers.k_proj"),
    *dense(f"{LAYER}.self_attn.v_proj", "vision_tower.layers.v_proj"),
    *dense(f"{LAYER}.self_attn.out_proj", "vision_tower.layers.out_proj"),
    *norm(f"{LAYER}.layer_norm2", "vision_tower.layers.layer_norm2"),
    *dense(f"{LAYER}.mlp.fc1", "vision_tower.layers.fc1"),
    *dense(f"{LAYER}.mlp.fc2", "vision_tower.layers.fc2"),
    *norm(f"{NAME}.post_layernorm", "vision_tower.post_norm"),
)


class VisionConfig:
    """What the config classes of all towers share; their fields are those of transformers.

    Attributes:
        model_type: Name of the tower in transformers.
        class_tokens: Number of positions before the patches.
    """

    model_type: ClassVar[str]
    class_tokens: ClassVar[int] = 1

    hidden_size: Width
    num_hidden_layers: Count
    num_attention_heads: Count
    num_channels: Count
    image_size: Width
    patch_size: Count
    hidden_act: str
    layer_norm_eps: float

    def __post_init__(self):
        layers.choose(layers.ACTIVATIONS, "vision_config.hidden_act", self.hidden_act)
        for field in ("image_size", "patch_size"):
            if not isinstance(getattr(self, field), int):
                raise InputError(f"vision_config.{field} must be one number: pictures are square")
        if self.image_size < self.patch_size:
            raise InputError(
                f"vision_config.image_size={self.image_size} must be at least"
                f" patch_size={self.patch_size}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"vision_config.hidden_size={self.hidden_size} must be a multiple of"
                f" num_attention_heads={self.num_attention_heads}"
            )

    @property
    def num_patches(self) -> int:
        """Number of patches of one picture."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_positions(self) -> int:
        """Number of positions P of one picture: its patches and the class token."""
        return self.num_patches + self.class_tokens


@dataclass(frozen=True)
class ClipConfig(VisionConfig):
    """Sizes of the vision tower; names and defaults of `transformers.CLIPVisionConfig`."""

    model_type: ClassVar[str] = "clip_vision_model"

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    num_channels: Count = 3
    image_size: Width = 224
    patch_size: Count = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


def make_norm(config: VisionConfig, dtype: str | None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Returns a layer norm of the tower's features."""
    return layers.layer_norm(
        config.hidden_size, config.layer_norm_eps, "vision_embed", dtype=dtype, rngs=rngs
    )


class PatchEmbedding(nnx.LinearGeneral):
    """The convolution that embeds the patches of a picture, whose strides equal its kernel size.

    It is written as a contraction. The per-example gradient of a contraction is a batched product;
    that of a convolution is a slow grouped convolution.
    """

    def __init__(self, config: VisionConfig, dtype: str | None, *, bias: bool, rngs: nnx.Rngs):
        p = config.patch_size
        super().__init__(
            (config.num_channels, p, p),
            config.hidden_size,
            axis=(-3, -2, -1),
            use_bias=bias,
            dtype=dtype,
            kernel_init=layers.KERNEL_INIT,
            kernel_metadata={"logical": ("channels", "patch", "patch", "vision_embed")},
            bias_metadata={"logical": ("vision_embed",)},
            rngs=rngs,
        )

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to [B, I, patches, D]."""
        p = self.kernel.shape[1]
        *lead, channels, height, width = pixel_values.shape
        high, wide = height // p, width // p
        x = pixel_values[..., : high * p, : wide * p]  # a convolution leaves the rest out, too
        x = x.reshape(*lead, channels, high, p, wide, p)
        x = jnp.einsum("...chpwq->...hwcpq", x)
        x = x.reshape(*lead, -1, channels, p, p)
        return super().__call__(x.astype(self.kernel.dtype))


def with_class_token(x: jax.Array, token: jax.Array) -> jax.Array:
    """Puts a token [D] before the patches [B, I, patches, D]."""
    first = jnp.broadcast_to(token, (*x.shape[:-2], 1, x.shape[-1]))
    return jnp.concatenate([first.astype(x.dtype), x], axis=-2)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Computes attention within pictures: queries, keys and values [B, I, P, D] to the same."""
    shape, split = q.shape, (-1, q.shape[-2], heads, q.shape[-1] // heads)
    q, k, v = (x.reshape(split) for x in (q, k, v))
    return attention.masked(q, k, v, None).reshape(shape)


class Embeddings(nnx.Module):
    """Embeds patches, class token and positions, and applies the norm before the first layer."""

    def __init__(self, config: ClipConfig, dtype: str | None, *, rngs: nnx.Rngs):
        d = config.hidden_size
        self.class_embedding = nnx.Param(
            layers.INIT(rngs.params(), (d,)), logical=("vision_embed",)
        )
        self.patch_embedding = PatchEmbedding(config, dtype, bias=False, rngs=rngs)
        self.position_embedding = nnx.Param(
            layers.INIT(rngs.params(), (config.num_positions, d)),
            logical=("positions", "vision_embed"),
        )
        self.pre_norm = make_norm(config, dtype, rngs)

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to [B, I, P, D]."""
        x = self.patch_embedding(pixel_values)
        x = with_class_token(x, self.class_embedding.get_value())
        return self.pre_norm(x + self.position_embedding.get_value().astype(x.dtype))


class Layer(nnx.Module):
    """A pre-norm transformer layer. The positions of one picture attend to each other."""

    def __init__(self, config: ClipConfig, dtype: str | None, *, rngs: nnx.Rngs):
        d, hidden = config.hidden_size, config.intermediate_size
        self.config = config

        def make(features_in, features_out, *logical):
            return layers.linear(
                features_in, features_out, logical, bias=True, dtype=dtype, rngs=rngs
            )

        self.layer_norm1 = make_norm(config, dtype, rngs)
        self.q_proj = make(d, d, "vision_embed", "vision_heads")
        self.k_proj = make(d, d, "vision_embed", "vision_heads")
        self.v_proj = make(d, d, "vision_embed", "vision_heads")
        self.out_proj = make(d, d, "vision_heads", "vision_embed")
        self.layer_norm2 = make_norm(config, dtype, rngs)
        self.fc1 = make(d, hidden, "vision_embed", "vision_mlp")
        self.fc2 = make(hidden, d, "vision_mlp", "vision_embed")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, I, P, D] to [B, I, P, D]."""
        y = self.layer_norm1(x)
        q, k, v = (project(y) for project in (self.q_proj, self.k_proj, self.v_proj))
        x = x + self.out_proj(attend(q, k, v, self.config.num_attention_heads))
        y = self.fc1(self.layer_norm2(x))
        return x + self.fc2(layers.ACTIVATIONS[self.config.hidden_act](y))


class Clip(nnx.Module):
    """The vision tower; SigLIP's differs only in its embeddings.

    Args:
        config: Sizes of the tower.
        depth: Number of layers to run.
        dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a key of `layers.REMAT`.
        mesh: Devices that the examples are split over; None: one device.
        rngs: Random keys of the initial parameters.
    """

    embed: ClassVar[Callable[..., Any]] = Embeddings

    def __init__(
        self,
        config: ClipConfig,
        *,
        depth: int,
        dtype: str | None,
        remat: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        self.depth, self.remat, self.mesh = depth, remat, mesh
        self.embeddings = self.embed(config, dtype, rngs=rngs)
        self.layers = layers.stack(
            lambda rngs: Layer(config, dtype, rngs=rngs), config.num_hidden_layers, rngs
        )
        self.post_norm = make_norm(config, dtype, rngs)  # unused, but checkpoints hold it

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to the output of the last layer run [B, I, P, D]."""
        x = squares.run(self.embeddings, pixel_values)
        (x,) = layers.scan(self.layers, (x,), remat=self.remat, mesh=self.mesh, length=self.depth)
        return x
