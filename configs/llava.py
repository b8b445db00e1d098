"""LLaVA-1.5-7B forgets people: what `llava_mllmu.py` and `llava_clear.py` have in common.

    python -m mmunlearner_jax.main --config=configs/llava.py --workdir=runs/llava \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

The checkpoint is a vanilla one, which knows the people (`third_party/manifest.toml` lists those
that the benchmark's authors publish); the benchmark is a folder with the parquet files of
MLLMU-Bench, or `hf://datasets/OWNER/NAME`. For CLEAR, whose splits are others, there is
`llava_clear.py`.
Its steps have run at this size on one H100 with random weights (docs/pods.md), the whole job not:
expect to choose `mesh` and batch sizes.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.config import defaults
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Batch size, learning rate and epoch as published; `--config=configs/llava.py:released`."""
    # The batches of 4 are split over the axes data and fsdp.
    config = defaults(mesh=(1, 4, -1))
    config.model.size = "llava_1_5_7b"
    config.evaluate.splits = ("forget", "test", "retain", "realworld")
    return with_semantics(config, semantics)
