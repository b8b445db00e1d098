"""Qwen2.5-VL's processor, which is that of Qwen2-VL."""

from mmunlearner_jax.models.qwen2_vl.inputs import load

__all__ = ["load"]
