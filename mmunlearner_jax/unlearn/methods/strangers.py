"""Strangers: descent on the forget set with another person's answers, and on the retain data.

It is the baseline "random labels" of Golatkar et al. 2020 (arXiv 1911.04933), with one wrong
identity for each person.
"""

from mmunlearner_jax.unlearn.method import Method

METHOD = Method(
    "strangers", "Strangers' answers", "#8c564b", "<", ascends=False, answers="strangers"
)
