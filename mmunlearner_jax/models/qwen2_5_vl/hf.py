"""Qwen2.5-VL in transformers' terms: as Qwen2-VL's `config.json`, with its own model types."""

import functools

from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl.hf import read

from_hf = functools.partial(read, Qwen2_5VLConfig)
