"""The CLIP vision transformer as LLaVA uses it: it returns hidden states and pools nothing.

Axes: B examples, I pictures per example, C channels, P positions (class token first), D features.
The example axis always comes first, because `squares` needs it there.
Source: Radford et al. 2021; parity with `transformers.CLIPVisionModel`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import attention, layers, squares
from mmunlearner_jax.models.fields import Count, Width


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the vision tower; names and defaults of `transformers.CLIPVisionConfig`."""

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    num_channels: Count = 3
    image_size: Width = 224
    patch_size: Count = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

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


def _norm(config: ClipConfig, dtype: str | None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layers.layer_norm(
        config.hidden_size, config.layer_norm_eps, "vision_embed", dtype=dtype, rngs=rngs
    )


class Embeddings(nnx.Module):
    """Embeds patches, class token and positions, and applies the norm before the first layer."""

    def __init__(self, config: ClipConfig, dtype: str | None, *, rngs: nnx.Rngs):
        d, p = config.hidden_size, config.patch_size
        self.config = config
        self.class_embedding = nnx.Param(
            layers.INIT(rngs.params(), (d,)), logical=("vision_embed",)
        )
        # The patch convolution is written as a contraction (its strides equal the kernel size). The
        # per-example gradient of a contraction is a batched product; that of a convolution is a
        # slow grouped convolution.
        self.patch_embedding = nnx.LinearGeneral(
            (config.num_channels, p, p),
            d,
            axis=(-3, -2, -1),
            use_bias=False,
            dtype=dtype,
            kernel_init=layers.KERNEL_INIT,
            kernel_metadata={"logical": ("channels", "patch", "patch", "vision_embed")},
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            layers.INIT(rngs.params(), (config.num_patches + 1, d)),
            logical=("positions", "vision_embed"),
        )
        self.pre_norm = _norm(config, dtype, rngs)

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to [B, I, P, D]."""
        p = self.config.patch_size
        *lead, channels, height, width = pixel_values.shape
        x = pixel_values.reshape(*lead, channels, height // p, p, width // p, p)
        x = jnp.einsum("...chpwq->...hwcpq", x)
        x = x.reshape(*lead, -1, channels, p, p)
        x = self.patch_embedding(x.astype(self.patch_embedding.kernel.dtype))
        first = jnp.broadcast_to(self.class_embedding.get_value(), (*lead, 1, x.shape[-1]))
        x = jnp.concatenate([first.astype(x.dtype), x], axis=-2)
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

        self.layer_norm1 = _norm(config, dtype, rngs)
        self.q_proj = make(d, d, "vision_embed", "vision_heads")
        self.k_proj = make(d, d, "vision_embed", "vision_heads")
        self.v_proj = make(d, d, "vision_embed", "vision_heads")
        self.out_proj = make(d, d, "vision_heads", "vision_embed")
        self.layer_norm2 = _norm(config, dtype, rngs)
        self.fc1 = make(d, hidden, "vision_embed", "vision_mlp")
        self.fc2 = make(hidden, d, "vision_mlp", "vision_embed")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, I, P, D] to [B, I, P, D]."""
        y, heads = self.layer_norm1(x), self.config.num_attention_heads
        q, k, v = (
            f(y).reshape(-1, y.shape[-2], heads, y.shape[-1] // heads)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        x = x + self.out_proj(attention.masked(q, k, v, None).reshape(x.shape))
        y = self.fc1(self.layer_norm2(x))
        return x + self.fc2(layers.ACTIVATIONS[self.config.hidden_act](y))


class Clip(nnx.Module):
    """The vision tower.

    Args:
        config: Sizes of the tower.
        depth: Number of layers to run.
        dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes, a key of `layers.REMAT`.
        mesh: Devices that the examples are split over; None: one device.
        rngs: Random keys of the initial parameters.
    """

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
        self.embeddings = Embeddings(config, dtype, rngs=rngs)
        self.layers = layers.stack(
            lambda rngs: Layer(config, dtype, rngs=rngs), config.num_hidden_layers, rngs
        )
        self.post_norm = _norm(config, dtype, rngs)  # unused, but checkpoints hold it

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to the output of the last layer run [B, I, P, D]."""
        x = squares.run(self.embeddings, pixel_values)
        return layers.scan(self.layers, x, remat=self.remat, mesh=self.mesh, length=self.depth)
