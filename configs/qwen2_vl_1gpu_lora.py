"""Qwen2-VL-7B forgets people of MLLMU-Bench on one GPU of 80 GB, by adapters.

    python -m mmunlearner_jax.main --config=configs/qwen2_vl_1gpu_lora.py:ratio=5 \
        --workdir=runs/lora_qwen --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_1gpu_lora.py, with the model and the pictures of configs/qwen2_vl.py.
"""

from ml_collections import ConfigDict

from configs import llava_1gpu_lora, qwen2_vl_1gpu


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    return llava_1gpu_lora.adapted(qwen2_vl_1gpu.get_config(arguments))
