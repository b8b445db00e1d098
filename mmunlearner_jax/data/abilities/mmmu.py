"""MMMU, validation part: college questions, some with several pictures, some without options.

Source: Yue et al., "MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning
Benchmark", arXiv 2311.16502. All pictures stand before the question, which names them.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(
    name="mmmu", title="MMMU", file="MMMU_DEV_VAL", open_rule="words", splits=("validation",)
)
