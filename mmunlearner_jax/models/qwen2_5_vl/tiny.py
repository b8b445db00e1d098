"""The tiny Qwen2.5-VL of the examples: its processor is that of the tiny Qwen2-VL."""

import functools

from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl.tiny import made, refuse

make = functools.partial(made, Qwen2_5VLConfig)
around = functools.partial(refuse, Qwen2_5VLConfig)
