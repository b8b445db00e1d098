"""LLaVA forgets four faces in CLEAR's form: photographs with captions, and questions in words.

    python -m mmunlearner_jax.main --config=configs/orl_clear.py --workdir=runs/orl_clear

The people, photographs and profiles of configs/orl.py, written in CLEAR's schema and asked as CLEAR
asks: for captions, for names by multiple choice and by likelihood, for what is written about the
people, and for digits. A 2 M parameter LLaVA learns all captions from nothing, then forgets the
faces of 4 of the 40 people (10 %).
"""

from ml_collections import ConfigDict

from configs import orl


def get_config(semantics: str = "paper") -> ConfigDict:
    """The default example; `--config=configs/orl_clear.py:released` as in configs/orl.py."""
    config = orl.get_config(semantics)
    config.prepare.benchmark = "clear"
    # Captions were tried with these, on pictures of 64 x 64 in 16 patches.
    config.prepare.vision.update(dict(image_size=64, patch_size=16))
    orl.taught_together(config)
    config.compare.ratios = (5, 10)  # CLEAR's own are 1, 5 and 10 %
    config.evaluate.decode.max_new_tokens = 32  # captions are longer than answers
    return config
