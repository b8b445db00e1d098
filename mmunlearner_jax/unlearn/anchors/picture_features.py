"""Features: what the decoder is given of a retained picture stays near what it was.

Only vision tower and projector are run a second time, not the decoder. Every answer about a
retained picture depends on these features, also those that no question of the retain set asks for.

Axes: B rows, T tokens, D text features.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.scoring import Batch, Params, pictures_of


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
    ours = _image_tokens(model, batch)
    theirs = jax.lax.stop_gradient(_image_tokens(vanilla, batch))
    seen = nnx.merge(*model).config.pictured(batch["input_ids"])[..., None]
    mean = jnp.sum(theirs, axis=(0, 1), where=seen) / jnp.maximum(jnp.sum(seen), 1)
    spread = jnp.sum((theirs - mean) ** 2, where=seen)
    return jnp.sum((ours - theirs) ** 2, where=seen) / spread


def _image_tokens(model: tuple[nnx.GraphDef, Params], batch: Batch) -> jax.Array:
    """Returns what the decoder is given, float32 [B, T, D]."""
    inputs = nnx.merge(*model).decoder_inputs(batch["input_ids"], **pictures_of(batch))
    return inputs.astype(jnp.float32)


ANCHOR = Anchor("features of retained pictures", feature_distance, ("vision", "projector"))
