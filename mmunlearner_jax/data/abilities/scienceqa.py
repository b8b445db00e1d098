"""ScienceQA, test part, the questions with pictures; most have a hint.

Source: Lu et al., "Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question
Answering", arXiv 2209.09513.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(name="scienceqa", title="ScienceQA", file="ScienceQA_TEST")
