"""Tiny random models of LLaVA from transformers, and the same models in this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mmunlearner_jax.models.llava.model import Llava
from tests.helpers import compare

IMAGE, PAD = 48, 0
VISION: dict[str, Any] = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=12,
    patch_size=4,
)
TEXT: dict[str, Any] = dict(
    vocab_size=49,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    pad_token_id=PAD,
    eos_token_id=None,
)
# Fields that differ from the above: of the whole config, the text part, the vision part.
CASES: dict[str, tuple[dict, dict, dict]] = {
    "plain": ({}, {}, {}),
    "grouped-rope": (
        {},
        dict(
            num_key_value_heads=2,
            head_dim=12,
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        ),
        {},
    ),
    "tied-full": (
        dict(tie_word_embeddings=True, vision_feature_select_strategy="full"),
        dict(tie_word_embeddings=True),
        {},
    ),
    "options": (
        dict(multimodal_projector_bias=False, vision_feature_layer=-1),
        dict(attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5),
        dict(hidden_act="gelu"),
    ),
    "qwen2": ({}, dict(model_type="qwen2", num_key_value_heads=2, bos_token_id=None), {}),
    "mistral": (
        {},
        dict(
            model_type="mistral",
            num_key_value_heads=2,
            head_dim=12,
            max_position_embeddings=64,
            sliding_window=64,
        ),
        {},
    ),
    "siglip": (
        dict(vision_feature_select_strategy="full", vision_feature_layer=-1),
        dict(model_type="qwen2", num_key_value_heads=2, bos_token_id=None),
        # As in SigLIP's 384 pixels with patches of 14, the last pixels fill no patch.
        dict(model_type="siglip_vision_model", vision_use_head=False, image_size=14),
    ),
    "siglip-default": ({}, {}, dict(model_type="siglip_vision_model", vision_use_head=False)),
    "dinov2": ({}, {}, dict(model_type="dinov2", mlp_ratio=2)),
    "dinov2-options": (
        dict(vision_feature_select_strategy="full", vision_feature_layer=-1),
        {},
        dict(model_type="dinov2", qkv_bias=False, use_mask_token=False),
    ),
}


@dataclass
class Case(compare.Case):
    theirs: LlavaForConditionalGeneration
    ours: Llava
    path: Path

    def batch(self, padding: str) -> dict[str, np.ndarray]:
        pictures = [IMAGE] * self.ours.config.tokens_per_image
        rows = [
            [3, *pictures, 5, *pictures, 7, 9],
            [4, 8, 15, *pictures, 16, 23, 42],
            [1, 2, 3, 5, 8, 13, 21],
        ]
        side = self.ours.config.vision.image_size
        pixels = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
        return compare.padded(rows, padding, PAD) | dict(pixel_values=pixels)

    def torch_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the batch for torch, with the positions that `generate` would use."""
        inputs: dict[str, Any] = {k: torch.from_numpy(v) for k, v in batch.items()}
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return inputs


def make_torch_model(name: str) -> LlavaForConditionalGeneration:
    """Returns a random model in which every parameter changes the output."""
    whole, text, vision = CASES[name]
    tower = {"model_type": "clip_vision_model"} | VISION | vision
    if tower["model_type"] == "dinov2":
        del tower["intermediate_size"]
    config = LlavaConfig(
        vision_config=AutoConfig.for_model(**tower),
        text_config=AutoConfig.for_model(**{"model_type": "llama"} | TEXT | text),
        image_token_index=IMAGE,
        **whole,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    compare.make_noisy(model)
    return model
