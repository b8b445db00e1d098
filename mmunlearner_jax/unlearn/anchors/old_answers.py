"""Old answers: what the model says of the pictures to forget, apart from who is seen, stays.

A model that forgets a face should still see that there is a face. The vanilla model's own answers
to general questions about the pictures to forget are learned in retain steps.

Source: PAVA, as described in its paper: answers of the model itself to questions that do not ask
for the identity, beside NPO on the forget set.
"""

import jax
from flax import nnx

from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.losses import cross_entropy, mean, score_tokens
from mmunlearner_jax.unlearn.scoring import Batch, Params


def loss_of_old_answers(
    model: tuple[nnx.GraphDef, Params], vanilla: tuple[nnx.GraphDef, Params], batch: Batch
) -> jax.Array:
    """Returns the mean negative log-likelihood of the old answers' tokens, in nats.

    Args:
        model: Graph definition and parameters of the model that moves.
        vanilla: Those of the vanilla model, which gave the answers.
        batch: A batch of the vanilla model's answers.
    """
    del vanilla
    return mean([cross_entropy(*score_tokens(*model, [batch]))])


ANCHOR = Anchor(
    "old answers about the pictures to forget",
    loss_of_old_answers,
    ("vision", "projector", "language"),
    "pictures",
)
