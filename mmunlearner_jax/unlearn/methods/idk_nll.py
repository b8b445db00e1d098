"""IdkNLL: descent on the forget set with refusals for answers, and descent on the retain data.

Source: Maini et al. 2024, "TOFU" (arXiv 2401.06121).
"""

from mmunlearner_jax.unlearn.method import Method

METHOD = Method("idk_nll", "IdkNLL", "#009e73", "X", ascends=False, answers="refusals")
