"""Tiny models in which every parameter changes the output."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.models.vision_language import VisionLanguageConfig


def filled(config: VisionLanguageConfig, mesh: Mesh | None = None) -> Any:
    """Returns a model with random parameters, so that every parameter changes the output."""
    rng = np.random.default_rng(0)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: config.make(mesh=mesh, rngs=nnx.Rngs(0))))
    fill = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.asarray(
            ("scale" in jax.tree_util.keystr(path)) + 0.3 * rng.normal(size=p.shape), p.dtype
        ),
        params,
    )
    return nnx.merge(graphdef, fill)
