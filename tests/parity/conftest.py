"""Tiny random checkpoints of LLaVA, written by transformers, beside our reading of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mmunlearner_jax.models.llava import Llava
from mmunlearner_jax.weights.io import from_pretrained
from tests.helpers import compare
from tests.helpers import torch_qwen2_vl as qwen2_vl

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
# What differs from the above: whole config, text part, vision part.
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
        pixels = np.random.default_rng(0).normal(size=(3, 3, 12, 12)).astype(np.float32)
        return compare.padded(rows, padding, PAD) | dict(pixel_values=pixels)

    def torch_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """With positions as `generate` counts them."""
        inputs: dict[str, Any] = {k: torch.from_numpy(v) for k, v in batch.items()}
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return inputs


def make_torch_model(name: str) -> LlavaForConditionalGeneration:
    """A random model whose every parameter matters."""
    whole, text, vision = CASES[name]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION | vision),
        text_config=LlamaConfig(**TEXT | text),
        image_token_index=IMAGE,
        **whole,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    compare.make_noisy(model)
    return model


@pytest.fixture(scope="session")
def torch_model():
    return make_torch_model


@pytest.fixture(scope="session", params=CASES)
def case(request, tmp_path_factory) -> Case:
    path = tmp_path_factory.mktemp(request.param)
    model = make_torch_model(request.param)
    model.save_pretrained(path)
    return Case(model, from_pretrained(path), path)


@pytest.fixture(scope="session", params=qwen2_vl.CASES)
def qwen(request, tmp_path_factory) -> qwen2_vl.Case:
    path = tmp_path_factory.mktemp(request.param)
    model = qwen2_vl.make_torch_model(request.param)
    model.save_pretrained(path)
    return qwen2_vl.Case(model, from_pretrained(path), path)


@pytest.fixture(params=["left", "right"])
def padding(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def highest_precision():
    with jax.default_matmul_precision("highest"):
        yield
