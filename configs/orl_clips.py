"""Qwen2-VL forgets four people by clips: configs/orl_qwen.py with videos for photographs.

    python -m mmunlearner_jax.main --config=configs/orl_clips.py --workdir=runs/orl_clips

A clip is four photographs of a person, two a second: two moments of 84 x 112 pixels. The digits
stay pictures; their patches are padded to the length of a clip.
"""

from ml_collections import ConfigDict

from configs import orl_qwen


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `:released` as in configs/orl.py."""
    config = orl_qwen.get_config(semantics)
    config.prepare.benchmark = "mllmu_clips"
    config.model.patch_budgets = (96,)
    return config
