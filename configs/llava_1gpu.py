"""LLaVA-1.5-7B forgets people of MLLMU-Bench on one GPU of 80 GB, all weights trained.

    python -m mmunlearner_jax.main --config=configs/llava_1gpu.py:ratio=5 --workdir=runs/one \
        --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_mllmu.py, with the same steps, but: weights and moments are bfloat16 and rounded
stochastically, so that small updates are not lost (`unlearn.rounding`), and 40 questions are asked
at once.
docs/one-gpu.md has the memory of every stage. The whole job has not been run at this size.
"""

from ml_collections import ConfigDict

from configs import llava_mllmu


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    return on_one_gpu(llava_mllmu.get_config(arguments))


def on_one_gpu(config: ConfigDict) -> ConfigDict:
    """Changes a config of a 7B model into one for a GPU of 80 GB, and returns it."""
    config.model.update(dict(param_dtype="bfloat16", remat="full"))
    config.unlearn.rounding = "stochastic"
    config.importance.batch_size = 5  # one row: a layer's gradient is held for each
    config.evaluate.decode.batch_size = 40
    return config
