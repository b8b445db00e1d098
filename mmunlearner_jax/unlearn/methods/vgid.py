"""VGID: the model learns what it says itself of a picture in which nobody can be recognised.

The vanilla model is asked about a noised picture, with words that say that the person is unknown
(`data.noising`). Forget steps lower the divergence from these answers, and retain steps the
divergence from the vanilla model's own: both losses stop by themselves.

Source: VGID (arXiv 2606.00105), visual-noise in-context distillation; noise and prompt are ours.
"""

from mmunlearner_jax.unlearn.losses import (
    OF_NOISED,
    OF_TOKENS,
    Term,
    TokenScores,
    supervised_tokens,
)
from mmunlearner_jax.unlearn.method import Loss, Method


def distillation(scores: TokenScores) -> tuple[Term, ...]:
    """Returns the mean over supervised tokens of KL(reference || model), as one term.

    Args:
        scores: Scores of the supervised tokens, with `kl`.
    """
    assert scores.kl is not None
    kept = scores.kl * scores.supervised
    return (Term(kept.sum(axis=1), supervised_tokens(scores)),)


METHOD = Method(
    "vgid",
    "VGID",
    "#7f7f7f",
    "H",
    forget=Loss(distillation, None, OF_NOISED),
    retain=Loss(distillation, None, OF_TOKENS),
    ascends=False,
)
