"""Qwen2.5-VL-7B forgets 5, 10 or 15 % of the people of MLLMU-Bench.

    python -m mmunlearner_jax.main --config=configs/qwen2_5_vl_mllmu.py:ratio=5 \
        --workdir=runs/qwen2_5_mllmu5 --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_mllmu.py, with the model and the pictures of configs/qwen2_5_vl.py.
"""

from ml_collections import ConfigDict

from configs import llava_mllmu, qwen2_5_vl
from mmunlearner_jax.semantics import read_arguments


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    given = read_arguments(arguments, ratio=(5, 10, 15), semantics="paper")
    config = llava_mllmu.get_config(f"ratio={given['ratio']}")
    return qwen2_5_vl.adapted(config, given["semantics"])
