"""Three short rows of tokens with labels, and the config of a model that reads them."""

import numpy as np

from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig

CONFIG = LlavaConfig(
    vision=ClipConfig(8, 8, 1, 2, image_size=4, patch_size=2),
    text=LlamaConfig(16, 8, 8, 1, 2),
    image_token_id=15,
)
IDS = np.random.default_rng(0).integers(0, 15, (3, 5))
LABELS = np.array([[-100, -100, 4, 2, -100], [1, 0, 3, 5, 6], [-100] * 5])
