"""MMStar: 1,500 multiple-choice questions that cannot be answered without the picture.

Source: Chen et al., "Are We on the Right Way for Evaluating Large Vision-Language Models?",
arXiv 2403.20330.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(name="mmstar", title="MMStar", file="MMStar")
