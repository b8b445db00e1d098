from pathlib import Path

import pytest
from flax import nnx

from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.weights.io import save_pretrained


@pytest.fixture(scope="session")
def model() -> Llava:
    """Every dimension differs from its neighbours, and 8 divides those that a mesh splits."""
    config = LlavaConfig(
        vision=ClipConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=4,
            patch_size=2,
        ),
        text=LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        image_token_id=39,
    )
    return Llava(config, rngs=nnx.Rngs(0))


@pytest.fixture
def checkpoint(model, tmp_path) -> Path:
    path = tmp_path / "checkpoint"
    save_pretrained(model, path)
    return path


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
