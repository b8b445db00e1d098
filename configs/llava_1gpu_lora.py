"""LLaVA-1.5-7B forgets people of MLLMU-Bench on one GPU of 80 GB, by adapters.

    python -m mmunlearner_jax.main --config=configs/llava_1gpu_lora.py:ratio=5 --workdir=runs/lora \
        --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_1gpu.py, but float32 adapters of rank 16 move (docs/lora.md), through the mask, and
the bfloat16 weights stay. docs/one-gpu.md has the memory of every stage.
"""

from ml_collections import ConfigDict

from configs import llava_1gpu


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    return adapted(llava_1gpu.get_config(arguments))


def adapted(config: ConfigDict) -> ConfigDict:
    """Changes a config for one GPU into one that trains adapters, and returns it."""
    config.unlearn.rounding = "nearest"
    config.unlearn.lora.rank = 16
    return config
