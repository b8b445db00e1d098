"""Qwen2.5-VL forgets four faces: the example of configs/orl.py with windows in the vision tower.

    python -m mmunlearner_jax.main --config=configs/orl_qwen2_5.py --workdir=runs/orl_qwen2_5

The people, the text and the way in which they are learned are those of configs/orl.py: the text
first, then the pictures with a frozen language model, in fewer steps. A window has 56 x 56 pixels,
2 x 2 tokens. A photograph of 56 x 84 does not fill its windows, a digit of 56 x 56 does.
"""

from ml_collections import ConfigDict

from configs import orl, orl_qwen
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `:released` as in configs/orl.py."""
    config = orl_qwen.adapted(orl.get_config())
    vision = dict(depth=4, hidden_size=96, intermediate_size=256, num_heads=4, patch_size=14)
    vision |= dict(window_size=56, fullatt_block_indexes=(1, 3))
    config.prepare.architecture = "qwen2_5_vl"
    config.prepare.vision = ConfigDict(vision)
    config.prepare.max_pixels = 84 * 84  # 56 x 84, 24 patches
    config.model.patch_budgets = (24,)
    config.finetune.update(dict(text_first=180, steps=260))
    config.importance.examples = 128
    return with_semantics(config, semantics)
