"""VizWiz: questions of blind people about their photographs, each with ten people's answers.

Source: Gurari et al., "VizWiz Grand Challenge: Answering Visual Questions from Blind People",
arXiv 1802.08218.
"""

from mmunlearner_jax.data.ability import AbilitySet

SET = AbilitySet(name="vizwiz", title="VizWiz", file="VizWiz", open_rule="vqa")
