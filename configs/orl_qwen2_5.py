"""Qwen2.5-VL forgets four faces: configs/orl_qwen.py with windows in the vision tower.

    python -m mmunlearner_jax.main --config=configs/orl_qwen2_5.py --workdir=runs/orl_qwen2_5

A window has 56 x 56 pixels, 2 x 2 tokens. A photograph of 84 x 112 does not fill its windows.
"""

from ml_collections import ConfigDict

from configs import orl_qwen


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `:released` as in configs/orl.py."""
    config = orl_qwen.get_config(semantics)
    vision = dict(depth=4, hidden_size=96, intermediate_size=256, num_heads=4, patch_size=14)
    vision |= dict(window_size=56, fullatt_block_indexes=(1, 3))
    config.prepare.architecture = "qwen2_5_vl"
    config.prepare.vision = ConfigDict(vision)
    return config
