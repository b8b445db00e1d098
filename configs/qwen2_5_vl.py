"""Qwen2.5-VL-7B forgets people: configs/qwen2_vl.py for its successor.

    python -m mmunlearner_jax.main --config=configs/qwen2_5_vl.py --workdir=runs/qwen2_5_vl \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

All other values are those of configs/qwen2_vl.py, pictures and patch budgets included. The steps
have been compiled at this size (docs/pods.md), but never run.
"""

from ml_collections import ConfigDict

from configs import llava, qwen2_vl


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default; `--config=configs/qwen2_5_vl.py:released`: the published choices."""
    return adapted(llava.get_config(), semantics)


def adapted(config: ConfigDict, semantics: str) -> ConfigDict:
    """Changes a config of LLaVA into one of Qwen2.5-VL, and returns it."""
    config = qwen2_vl.adapted(config, semantics)
    config.model.size = "qwen2_5_vl_7b"
    return config
