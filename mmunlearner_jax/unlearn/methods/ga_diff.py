"""GA-Diff: gradient ascent on the forget set, descent on the retain data.

Source: Liu et al. 2022, "Continual learning and private unlearning" (arXiv 2203.12817).
"""

from mmunlearner_jax.unlearn.method import Method

METHOD = Method("ga_diff", "Gradient difference", "#e69f00", "^")
