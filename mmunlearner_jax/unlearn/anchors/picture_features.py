"""Features: what the decoder is given of a retained picture stays near what it was.

Only vision tower and projector are run a second time, not the decoder. Every answer about a
retained picture depends on these features, also those that no question of the retain set asks for.

Axes: B rows, T tokens, D text features.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.scoring import Batch, Params, image_tokens


def feature_distance(
    model: tuple[nnx.GraphDef, Params], vanilla: tuple[nnx.GraphDef, Params], batch: Batch
) -> jax.Array:
    """Returns the squared distance of image tokens from the vanilla model's, over their spread.

    It is 0 for the vanilla model, and 1 for a model that gives every image token the batch's mean.

    Args:
        model: Graph definition and parameters of the model that moves.
        vanilla: Those of the vanilla model.
        batch: A dict with `input_ids` [B, T] and pictures.
    """
    ((ours, seen),) = image_tokens(*model, [batch])
    ((theirs, _),) = image_tokens(*vanilla, [batch])
    theirs = jax.lax.stop_gradient(theirs)
    mean = jnp.sum(theirs, axis=(0, 1), where=seen) / jnp.maximum(jnp.sum(seen), 1)
    spread = jnp.sum((theirs - mean) ** 2, where=seen)
    return jnp.sum((ours - theirs) ** 2, where=seen) / spread


ANCHOR = Anchor("features of retained pictures", feature_distance, ("vision", "projector"))
