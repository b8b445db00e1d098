"""The SigLIP vision transformer: CLIP's without class token and without a norm before its layers.

Axes: B examples, I pictures per example, C channels, P positions, D features.
Source: Zhai et al. 2023; parity with `transformers.SiglipVisionModel`.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import layers
from mmunlearner_jax.models.fields import Count
from mmunlearner_jax.models.llava.vision import NAME, Clip, ClipConfig, PatchEmbedding
from mmunlearner_jax.weights.table import Row

# The other tensors have CLIP's names.
ROWS = (
    Row(f"{NAME}.embeddings.patch_embedding.bias", "vision_tower.embeddings.patch_embedding.bias"),
)


@dataclass(frozen=True)
class SiglipConfig(ClipConfig):
    """Sizes of the vision tower; names and defaults of `transformers.SiglipVisionConfig`.

    Attributes:
        vision_use_head: Whether the checkpoint has a head that pools; LLaVA's never use it.
    """

    model_type: ClassVar[str] = "siglip_vision_model"
    class_tokens: ClassVar[int] = 0

    patch_size: Count = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.vision_use_head:
            raise InputError(
                "vision_config.vision_use_head=True is not supported: the tower's head is not read;"
                " set it to false, and save the model again with transformers"
            )


class Embeddings(nnx.Module):
    """Embeds patches and positions."""

    def __init__(self, config: SiglipConfig, dtype: str | None, *, rngs: nnx.Rngs):
        self.patch_embedding = PatchEmbedding(config, dtype, bias=True, rngs=rngs)
        self.position_embedding = nnx.Param(
            layers.INIT(rngs.params(), (config.num_positions, config.hidden_size)),
            logical=("positions", "vision_embed"),
        )

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """Maps [B, I, C, height, width] to [B, I, P, D]."""
        x = self.patch_embedding(pixel_values)
        return x + self.position_embedding.get_value().astype(x.dtype)


class Siglip(Clip):
    """The vision tower."""

    embed = Embeddings
