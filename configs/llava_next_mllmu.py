"""LLaVA-NeXT-7B forgets 5, 10 or 15 % of the people of MLLMU-Bench.

    python -m mmunlearner_jax.main --config=configs/llava_next_mllmu.py:ratio=5 \
        --workdir=runs/llava_next_mllmu5 --config.model.checkpoint=PATH_OR_HF_NAME

As configs/llava_mllmu.py, with the model of configs/llava_next.py.
"""

from ml_collections import ConfigDict

from configs import llava_mllmu, llava_next


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    return llava_next.adapted(llava_mllmu.get_config(arguments))
