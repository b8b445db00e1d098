"""GQA, balanced test-dev part: compositional questions, answered in a word.

Source: Hudson and Manning, "GQA: A New Dataset for Real-World Visual Reasoning and Compositional
Question Answering", arXiv 1902.09506.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(name="gqa", title="GQA", file="GQA_TestDev_Balanced", open_rule="exact")
