"""Qwen2-VL-7B forgets people: configs/llava.py for the second model of the paper.

    python -m mmunlearner_jax.main --config=configs/qwen2_vl.py --workdir=runs/qwen2_vl \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

Learning rate, batches, epoch and semantics are those of configs/llava.py, whose values not named
here hold. Pictures keep their shape and have at most 512 tokens; a step is compiled once for each
of the budgets. The steps have been compiled at this size (docs/pods.md) and never run.
"""

from ml_collections import ConfigDict

from configs import llava
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """The default; `--config=configs/qwen2_vl.py:released` for the published code's choices."""
    return adapted(llava.get_config(), semantics)


def adapted(config: ConfigDict, semantics: str) -> ConfigDict:
    """A config of LLaVA's, for Qwen2-VL."""
    config.model.size = "qwen2_vl_7b"
    config.model.max_pixels = 512 * 28 * 28  # a token is 28 x 28 pixels
    config.model.patch_budgets = (512, 1024, 2048)  # of all pictures of a row; 4 are a token
    return with_semantics(config, semantics)
