"""Foresee: Unsee, whose forget steps look at what relearning would bring back.

Each forget step fine-tunes a copy of the model for a few steps on one picture of each person, takes
Unsee's gradient there (`unlearn.lookahead`), and moves the model by it. Place, target and anchor
are Unsee's. How it was chosen: docs/unsee.md.
"""

import dataclasses

from mmunlearner_jax.unlearn.methods import unsee

METHOD = dataclasses.replace(
    unsee.METHOD, name="foresee", label="Foresee", color="#2ca02c", marker="d", ahead=3
)
