"""Reads a checkpoint as `config.model` says."""

from typing import Any

import jax

from mmunlearner_jax.config import Config
from mmunlearner_jax.config.model import ModelConfig
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.weights.io import abstract_from_pretrained, from_pretrained


def computation(model: ModelConfig) -> dict[str, Any]:
    """Returns how a model computes, as arguments of `from_pretrained`."""
    return {
        "dtype": model.param_dtype,
        "compute_dtype": model.compute_dtype,
        "remat": model.remat,
        "attention": model.attention,
    }


def load_model(config: Config, checkpoint: str, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Reads a checkpoint, sharded over the mesh."""
    return from_pretrained(checkpoint, mesh=mesh, **computation(config.model))


def load_abstract(config: Config, checkpoint: str, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Reads all of a checkpoint except its weights: shapes, dtypes and shardings stand for them."""
    return abstract_from_pretrained(checkpoint, mesh=mesh, **computation(config.model))
