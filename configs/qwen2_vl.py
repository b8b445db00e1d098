"""Qwen2-VL-7B forgets people: configs/llava.py for the second model of the paper.

    python -m mmunlearner_jax.main --config=configs/qwen2_vl.py --workdir=runs/qwen2_vl \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

All values that are not set here are those of configs/llava.py, e.g. learning rate, batches, epoch
and semantics. Pictures keep their aspect ratio and have at most 512 tokens; a step is compiled once
for each patch budget. The steps have been compiled at this size (docs/pods.md), but never run.
"""

from ml_collections import ConfigDict

from configs import llava
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default; `--config=configs/qwen2_vl.py:released`: the published choices."""
    return adapted(llava.get_config(), semantics)


def adapted(config: ConfigDict, semantics: str) -> ConfigDict:
    """Changes a config of LLaVA into one of Qwen2-VL, and returns it."""
    config.model.size = "qwen2_vl_7b"
    config.model.remat = "full"
    config.model.max_pixels = 512 * 28 * 28  # a token is 28 x 28 pixels
    config.model.patch_budgets = (512, 1024, 2048)  # patches of all pictures of a row; 4 per token
    return with_semantics(config, semantics)
