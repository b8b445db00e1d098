"""Multimodal unlearning in JAX: make a vision-language model forget a face, and nothing else."""

from mmunlearner_jax.unlearn.importance import importance
from mmunlearner_jax.unlearn.mask import saliency_mask
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import from_hf_names, from_pretrained, save_pretrained, to_hf_names

__version__ = "0.1.0"

__all__ = [
    "from_hf_names",
    "from_pretrained",
    "importance",
    "masked_ascent",
    "save_pretrained",
    "saliency_mask",
    "to_hf_names",
]
