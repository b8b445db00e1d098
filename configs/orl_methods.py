"""Unsee beside MMUnlearner and the baselines on the ORL example: words kept, and what comes back.

    python -m mmunlearner_jax.compare --config=configs/orl_methods.py --workdir=runs/methods

docs/results/methods.md is its page. The contrasts were named before any scored seed was run.
"""

from ml_collections import ConfigDict

from configs import orl
from mmunlearner_jax.semantics import with_semantics

METHODS = ("unsee", "mmunlearner", "ga_diff", "kl_min", "npo")
TUNED = (*METHODS, "plain_importances", "random_mask", "cover_only", "vision_alone")
# What Unsee is without one of its parts, at its learning rate.
ABLATIONS = ("unsee_no_anchor", "unsee_ascent", "unsee_everywhere")
# In other words, others' pictures, other things.
KINDS = ("test/qa", "test_retain/vqa", "realworld/vqa")
RIVALS = [name for name in TUNED if name != "unsee"]
PRIMARY, *SECONDARY = (
    f"unsee,{rival},{kind}" for rival in ("mmunlearner", *RIVALS[1:]) for kind in KINDS
)


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the config; `--config=configs/orl_methods.py:released`: the published choices."""
    config = orl.get_config()
    config.compare.update(dict(methods=TUNED, controls=ABLATIONS, control_seeds=5))
    config.compare.update(dict(primary=PRIMARY, secondary=tuple(SECONDARY), share_every=0))
    config.compare.update(dict(forget_steps=32, depth=2.0, halfway=False))
    config.compare.update(dict(relearn_steps=(10, 40)))
    return with_semantics(config, semantics)
