"""Qwen2-VL-7B forgets 1, 5 or 10 % of the authors of CLEAR.

    python -m mmunlearner_jax.main --config=configs/qwen2_vl_clear.py:ratio=5 \
        --workdir=runs/qwen_clear5 --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_clear.py, with the model and the pictures of configs/qwen2_vl.py.
"""

from ml_collections import ConfigDict

from configs import llava_clear, qwen2_vl
from mmunlearner_jax.semantics import read_arguments


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    given = read_arguments(arguments, ratio=(5, 1, 10), semantics="paper")
    config = llava_clear.get_config(f"ratio={given['ratio']}")
    return qwen2_vl.adapted(config, given["semantics"])
