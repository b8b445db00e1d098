"""The DINOv2 vision transformer as LLaVA uses it: its layers scale what they add.

Axes: B examples, I pictures per example, C channels, P positions (class token first), D features.
Source: Oquab et al. 2023; parity with `transformers.Dinov2Model`.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import layers, squares
from mmunlearner_jax.models.fields import Count, Width
from mmunlearner_jax.models.llava.vision import (
    NAME,
    PatchEmbedding,
    VisionConfig,
    attend,
    make_norm,
    with_class_token,
)
from mmunlearner_jax.weights.table import CONV, Row, dense, norm

_EMBED, _LAYER = f"{NAME}.embeddings", f"{NAME}.encoder.layer.{{layer}}"
_OURS, _BLOCKS = "vision_tower.embeddings", "vision_tower.blocks"

ROWS = (
    Row(f"{_EMBED}.cls_token", f"{_OURS}.cls_token"),
    Row(f"{_EMBED}.mask_token", f"{_OURS}.mask_token"),
    Row(f"{_EMBED}.position_embeddings", f"{_OURS}.position_embeddings"),
    Row(f"{_EMBED}.patch_embeddings.projection.weight", f"{_OURS}.projection.kernel", CONV),
    Row(f"{_EMBED}.patch_embeddings.projection.bias", f"{_OURS}.projection.bias"),
    *norm(f"{_LAYER}.norm1", f"{_BLOCKS}.norm1"),
    *dense(f"{_LAYER}.attention.q_proj", f"{_BLOCKS}.q_proj"),
    *dense(f"{_LAYER}.attention.k_proj", f"{_BLOCKS}.k_proj"),
    *dense(f"{_LAYER}.attention.v_proj", f"{_BLOCKS}.v_proj"),
    *dense(f"{_LAYER}.attention.o_proj", f"{_BLOCKS}.o_proj"),
    Row(f"{_LAYER}.layer_scale1.lambda1", f"{_BLOCKS}.scale_1"),
    *norm(f"{_LAYER}.norm2", f"{_BLOCKS}.norm2"),
    *dense(f"{_LAYER}.mlp.fc1", f"{_BLOCKS}.fc1"),
    *dense(f"{_LAYER}.mlp.fc2", f"{_BLOCKS}.fc2"),
    Row(f"{_LAYER}.layer_scale2.lambda1", f"{_BLOCKS}.scale_2"),
    *norm(f"{NAME}.layernorm", "vision_tower.final_norm"),
)

# Names on disk, which transformers 4 and 5 write, to those above; see `Table.read`.
_ATTENTION = r"vision_tower\.encoder\.layer\.(\d+)\.attention\."
_PROJECTIONS = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}
_OWN = r"encoder\.layer\.|layernorm\.|embeddings\.(?:\w+_token|\w+_embeddings)"
READ = tuple(
    (
        rf"^(?:model\.)?{_ATTENTION}{re.escape(theirs)}\.",
        rf"{NAME}.encoder.layer.\1.attention.{ours}.",
    )
    for ours, theirs in _PROJECTIONS.items()
)
WRITTEN = (
    *(
        (rf"^model\.{_ATTENTION}{ours}\.", rf"vision_tower.encoder.layer.\1.attention.{theirs}.")
        for ours, theirs in _PROJECTIONS.items()
    ),
    (rf"^model\.vision_tower\.({_OWN})", r"vision_tower.\1"),
)


@dataclass(frozen=True)
class Dinov2Config(VisionConfig):
    """Sizes of the vision tower; names and defaults of `transformers.Dinov2Config`.

    Attributes:
        use_swiglu_ffn: Whether the feed-forward blocks are gated.
        use_mask_token: Whether the checkpoint has a mask token; pictures never use it.
    """

    model_type: ClassVar[str] = "dinov2"

    hidden_size: Width = 768
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    mlp_ratio: Count = 4
    num_channels: Count = 3
    image_size: Width = 224
    patch_size: Count = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    use_mask_token: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.use_swiglu_ffn:
            raise InputError(
                "vision_config.use_swiglu_ffn=True (DINOv2-giant) is not supported; only false is"
            )


class Embeddings(nnx.Module):
    """Embeds patches, class token and positions."""

    def __init__(self, config: Dinov2Config, dtype: str | None, *, rngs: nnx.Rngs):
        d = config.hidden_size

        def param(*shape: int) -> nnx.Param:
            logical = (*("positions",) * (len(shape) - 1), "vision_embed")
            return nnx.Param(layers.INIT(rngs.params(), shape), logical=logical)

        self.cls_token = param(1, 1, d)
        self.mask_token = param(1, d) if config.use_mask_token else None
        self.position_embeddings = param(1, config.num_positions, d)
        self.projection = PatchEmbedding(config, dtype, bias=True, rngs=rngs)

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to [B, I, P, D]."""
        x = with_class_token(self.projection(pixel_values), self.cls_token.get_value()[0, 0])
        return x + self.position_embeddings.get_value().astype(x.dtype)


class Layer(nnx.Module):
    """A pre-norm transformer layer. The positions of one picture attend to each other."""

    def __init__(self, config: Dinov2Config, dtype: str | None, *, rngs: nnx.Rngs):
        d, hidden = config.hidden_size, config.hidden_size * config.mlp_ratio
        self.config = config

        def make(features_in, features_out, *logical, bias=True):
            return layers.linear(
                features_in, features_out, logical, bias=bias, dtype=dtype, rngs=rngs
            )

        self.norm1 = make_norm(config, dtype, rngs)
        self.q_proj = make(d, d, "vision_embed", "vision_heads", bias=config.qkv_bias)
        self.k_proj = make(d, d, "vision_embed", "vision_heads", bias=config.qkv_bias)
        self.v_proj = make(d, d, "vision_embed", "vision_heads", bias=config.qkv_bias)
        self.o_proj = make(d, d, "vision_heads", "vision_embed")
        self.norm2 = make_norm(config, dtype, rngs)
        self.fc1 = make(d, hidden, "vision_embed", "vision_mlp")
        self.fc2 = make(hidden, d, "vision_mlp", "vision_embed")
        self.scale_1 = nnx.Param(jnp.ones(d), logical=("vision_embed",))
        self.scale_2 = nnx.Param(jnp.ones(d), logical=("vision_embed",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, I, P, D] to [B, I, P, D]."""
        y = self.norm1(x)
        q, k, v = (project(y) for project in (self.q_proj, self.k_proj, self.v_proj))
        y = self.o_proj(attend(q, k, v, self.config.num_attention_heads))
        x = x + y * self.scale_1.get_value().astype(y.dtype)
        y = layers.ACTIVATIONS[self.config.hidden_act](self.fc1(self.norm2(x)))
        y = self.fc2(y)
        return x + y * self.scale_2.get_value().astype(y.dtype)


class Dinov2(nnx.Module):
    """The vision tower; the arguments are those of `vision.Clip`."""

    def __init__(
        self,
        config: Dinov2Config,
        *,
        depth: int,
        dtype: str | None,
        remat: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        self.depth, self.remat, self.mesh = depth, remat, mesh
        self.embeddings = Embeddings(config, dtype, rngs=rngs)
        self.blocks = layers.stack(
            lambda rngs: Layer(config, dtype, rngs=rngs), config.num_hidden_layers, rngs
        )
        self.final_norm = make_norm(config, dtype, rngs)  # unused, but checkpoints hold it

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to the output of the last layer run [B, I, P, D]."""
        x = squares.run(self.embeddings, pixel_values)
        (x,) = layers.scan(self.blocks, (x,), remat=self.remat, mesh=self.mesh, length=self.depth)
        return x
