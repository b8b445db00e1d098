"""Foresee beside Unsee and the rivals of `configs/orl_methods.py` on the ORL example.

    python -m mmunlearner_jax.compare --config=configs/orl_foresee.py --workdir=runs/foresee

`--config=configs/orl_foresee.py:few` leaves out those that are furthest behind. The contrasts were
named before any scored seed was run.
"""

from ml_collections import ConfigDict

from configs import orl_methods
from mmunlearner_jax.errors import InputError

# The learning rate of each is chosen; the masks run at MMUnlearner's.
RIVALS = {
    "all": (orl_methods.TUNED, orl_methods.SAME_RATE),
    "few": (("unsee", "mmunlearner", "vision_alone"), ("random_mask",)),
}
# Others' unseen photographs, in other words, other things.
KINDS = ("test_retain/vqa", "test/qa", "realworld/vqa")
# Unsee with another part exchanged, at Unsee's learning rate.
PARTS = ("unsee_path_mask", "unsee_preconditioned")


def get_config(rivals: str = "all") -> ConfigDict:
    """Returns the config of the comparison, with all rivals or a few."""
    if rivals not in RIVALS:
        raise InputError(f"--config=FILE:{rivals}: give {' or '.join(RIVALS)} behind the colon")
    tuned, same_rate = RIVALS[rivals]
    first, *others = (f"foresee,{rival},{kind}" for kind in KINDS for rival in (*tuned, *same_rate))
    config = orl_methods.get_config()
    parts = PARTS if rivals == "all" else ()
    config.compare.update(dict(methods=("foresee", *tuned), controls=(*same_rate, *parts)))
    config.compare.update(dict(primary=first, secondary=tuple(others)))
    return config
