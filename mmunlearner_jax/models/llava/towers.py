"""The vision towers of a LLaVA by the `model_type` of `vision_config`."""

from mmunlearner_jax.models.llava.dinov2 import Dinov2, Dinov2Config
from mmunlearner_jax.models.llava.siglip import Siglip, SiglipConfig
from mmunlearner_jax.models.llava.vision import Clip, ClipConfig

CONFIGS = {config.model_type: config for config in (ClipConfig, SiglipConfig, Dinov2Config)}
TOWERS = {ClipConfig: Clip, SiglipConfig: Siglip, Dinov2Config: Dinov2}
