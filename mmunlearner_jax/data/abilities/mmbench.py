"""MMBench, English, development part: multiple choice over twenty abilities.

Source: Liu et al., "MMBench: Is Your Multi-modal Model an All-around Player?", arXiv 2307.06281.
The released file repeats each question with its options rotated, under the index of the question
and a multiple of a million.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(
    name="mmbench",
    title="MMBench",
    file="MMBench_DEV_EN",
    categories="l2-category",
    copies_from=1_000_000,
)
