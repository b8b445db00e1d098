"""Qwen2-VL-7B forgets people of MLLMU-Bench on one GPU of 80 GB, all weights trained.

    python -m mmunlearner_jax.main --config=configs/qwen2_vl_1gpu.py:ratio=5 \
        --workdir=runs/qwen_one --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_1gpu.py, with the model and the pictures of configs/qwen2_vl.py. Its vocabulary is
five times as large: a forget step takes 68 GiB (docs/one-gpu.md).
"""

from ml_collections import ConfigDict

from configs import llava_1gpu, qwen2_vl_mllmu


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    return llava_1gpu.on_one_gpu(qwen2_vl_mllmu.get_config(arguments))
