"""Own words: what the model says in words about the people to forget stays as likely as it was.

The vanilla model writes the text itself, so none has to be given, and nothing that it did not know
is taught.

Source: the divergence is that of KL-Min (Maini et al. 2024, arXiv 2401.06121).
"""

import jax
from flax import nnx

from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.losses import OF_TOKENS, mean, mean_of, score_tokens
from mmunlearner_jax.unlearn.scoring import Batch, Params


def divergence_of_words(
    model: tuple[nnx.GraphDef, Params], vanilla: tuple[nnx.GraphDef, Params], batch: Batch
) -> jax.Array:
    """Returns the mean over the text's tokens of KL(vanilla || model), in nats.

    Args:
        model: Graph definition and parameters of the model that moves.
        vanilla: Those of the vanilla model, whose scores the batch has already.
        batch: A batch of the vanilla model's answers, with `LOG_PROBS`.
    """
    del vanilla
    (scores,) = score_tokens(*model, [batch])
    assert scores.kl is not None
    return mean([(mean_of(scores.kl, scores.supervised),)])


ANCHOR = Anchor(
    "own words about the forgotten", divergence_of_words, ("language",), "words", OF_TOKENS
)
