"""LLaVA-1.5-7B forgets people: the common part of `llava_mllmu.py` and `llava_clear.py`.

    python -m mmunlearner_jax.main --config=configs/llava.py --workdir=runs/llava \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

The checkpoint is a vanilla model, which knows the people (`third_party/manifest.toml` lists those
that the benchmark's authors publish). The benchmark is a folder with the parquet files of
MLLMU-Bench, or `hf://datasets/OWNER/NAME`. CLEAR has other splits: use `llava_clear.py`.
The steps have run at this size on one H100 with random weights (docs/pods.md); the whole job has
not. Weights are split over all devices, by heads while questions are answered. Batches are rounded
up to what the mesh divides.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.config import defaults
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the config, with batch size, learning rate and epoch as published.

    `--config=configs/llava.py:released` has all choices of the published code.
    """
    # Four devices share a row and split its heads; docs/pods.md has what this saves on v5e-16.
    config = defaults(mesh=(1, -1, 4), round_batches=True)
    config.model.size = "llava_1_5_7b"
    config.evaluate.decode.update(dict(batch_size=160, weights="heads"))
    config.evaluate.splits = ("forget", "test", "retain", "realworld")
    return with_semantics(config, semantics)
