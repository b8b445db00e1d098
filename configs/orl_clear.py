"""LLaVA forgets four faces, with data in CLEAR's form: captioned photographs and text questions.

    python -m mmunlearner_jax.main --config=configs/orl_clear.py --workdir=runs/orl_clear

The people, photographs and profiles are those of configs/orl.py, in CLEAR's schema. The questions
are CLEAR's: for captions, for names by multiple choice and by likelihood, for the text about the
people, and for digits. A LLaVA of 2 M parameters learns all captions from scratch, then forgets the
faces of 4 of the 40 people (10 %).
"""

from ml_collections import ConfigDict

from configs import orl


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `:released` as in configs/orl.py."""
    config = orl.get_config(semantics)
    config.prepare.benchmark = "clear"
    # Pictures of 64 x 64 in 16 patches, with which captions were tried.
    config.prepare.vision.update(dict(image_size=64, patch_size=16))
    config.update_from_flattened_dict(orl.TOGETHER | {"finetune.text_batch": 16})
    config.compare.ratios = (5, 10)  # CLEAR's own are 1, 5 and 10 %
    config.evaluate.decode.max_new_tokens = 32  # captions are longer than other answers
    return config
