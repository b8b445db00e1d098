"""Qwen2-VL forgets four faces: the example of configs/orl.py with pictures of several sizes.

    python -m mmunlearner_jax.main --config=configs/orl_qwen.py --workdir=runs/orl_qwen

A tiny Qwen2-VL learns the people, photographs and profiles of configs/orl.py from scratch, in
ChatML with a system turn, then forgets the faces of 4 of the 40 people. Its pictures are
photographs of 84 x 112 pixels and digits of 56 x 56; their patches are padded to one length.
"""

from ml_collections import ConfigDict

from configs import orl
from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `:released` as in configs/orl.py."""
    config = adapted(orl.get_config())
    # The text is longer than it was when a step had 16 questions.
    config.update_from_flattened_dict(orl.TOGETHER | {"finetune.text_batch": 40})
    return with_semantics(config, semantics)


def adapted(config: ConfigDict) -> ConfigDict:
    """Changes the config of the example into one of Qwen2-VL, and returns it."""
    vision = dict(depth=4, embed_dim=96, num_heads=4, mlp_ratio=4, patch_size=14)
    text = orl.TEXT | dict(num_key_value_heads=2, rms_norm_eps=1e-6, mrope_section=(4, 6, 6))
    config.prepare.architecture = "qwen2_vl"
    config.prepare.vision, config.prepare.text = ConfigDict(vision), ConfigDict(text)
    config.prepare.update(dict(min_pixels=56 * 56, max_pixels=84 * 112))
    config.model.patch_budgets = (48,)
    return config
