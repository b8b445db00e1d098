"""POPE: whether an object is in a picture; 9,000 questions about 500 pictures of COCO.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models",
arXiv 2305.10355. The categories tell how the absent objects were chosen: random, popular, or
adversarial.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(name="pope", title="POPE", file="POPE", open_rule="yes_no", lines="*pope_*.json*")
