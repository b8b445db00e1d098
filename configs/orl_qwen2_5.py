"""Qwen2.5-VL forgets four faces of 24: configs/orl.py with windows in the vision tower.

    python -m mmunlearner_jax.main --config=configs/orl_qwen2_5.py --workdir=runs/orl_qwen2_5

The model learns as in configs/orl.py: the text first, then the pictures with a frozen language
model. There are fewer people, and the decoder has a layer less, so that it takes less time.
Unlearning moves the vision tower and the merger alone: no answer to a question in words can change,
and no importance is measured on text. A window has 56 x 56 pixels, 2 x 2 tokens. A photograph of
56 x 84 does not fill its windows, a digit of 56 x 56 does.
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
    config.prepare.text.num_hidden_layers = 3
    config.prepare.vision = ConfigDict(vision)
    config.prepare.max_pixels = 84 * 84  # 56 x 84, 24 patches
    config.model.patch_budgets = (24,)
    config.prepare.people, config.data.forget_ratio = 24, 15
    config.finetune.update(dict(text_first=110, steps=220, warmup=20))
    config.finetune.update(dict(picture_batch=48, text_pack=4))
    # With more jitter, retain steps, which have none, go on teaching the digits.
    config.finetune.jitter.update(dict(shift=4, noise=0.02))
    config.importance.examples = 128
    config.importance.preserve.language = ("pictures",)  # it does not move
    config.unlearn.update(dict(moves=("vision", "projector"), learning_rate=4e-4))
    config.unlearn.forget_every = 2
    return with_semantics(config, semantics)
