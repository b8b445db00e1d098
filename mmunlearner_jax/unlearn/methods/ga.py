"""GA: gradient ascent on the forget set, without retain steps.

Source: Thudi et al. 2022, "Unrolling SGD" (arXiv 2109.13398).
"""

from mmunlearner_jax.unlearn.method import Method

METHOD = Method("ga", "Gradient ascent", "#d55e00", "v", retain=None)
