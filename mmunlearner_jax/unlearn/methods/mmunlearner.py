"""MMUnlearner: gradient ascent on the weights of the saliency mask, descent on the retain data.

Source: Huo et al. 2025, "MMUnlearner" (arXiv 2502.11051).
"""

from mmunlearner_jax.unlearn.method import Method

METHOD = Method("mmunlearner", "MMUnlearner", "#000000", "o", masked=True)
