"""Unsee's steps on eight devices give what they give on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.anchors import ANCHORS
from mmunlearner_jax.unlearn.losses import cross_entropy
from mmunlearner_jax.unlearn.mask import all_true
from mmunlearner_jax.unlearn.methods.unsee import log_loss
from mmunlearner_jax.unlearn.steps import TrainState, anchored_step, forget_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import in_groups
from tests.helpers.meshes import CONFIG, initial, tiny_batch


def work(sizes):
    """Three forget and retain steps in turn; whole arrays."""
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    graphdef, _ = abstract_model(CONFIG, mesh)
    vanilla = jax.device_put(initial(), param_shardings(initial(), mesh))
    frozen, moving = nnx.split_state(vanilla, in_groups("llava", ("language",)), ...)
    sgd = optax.sgd(0.05)  # Adam's division by |g| would turn rounding into whole steps
    state = TrainState.create(jax.tree.map(jnp.copy, moving), sgd)
    loss = functools.partial(log_loss, floor=1e-3)
    ascend = forget_step(graphdef, masked_ascent(sgd), loss)
    anchor = ANCHORS["picture_features"]
    descend = anchored_step(graphdef, sgd, cross_entropy, anchor, 1.0, graphdef)
    forget, retain = (put_batch(tiny_batch(seed), mesh) for seed in (0, 1))
    losses = []
    for _ in range(3):
        state, up = ascend(state, [forget], all_true(state.params), frozen)
        state, down = descend(state, [retain], frozen, vanilla)
        losses += [up, down]
    for leaf, like in zip(jax.tree.leaves(state.params), jax.tree.leaves(moving), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    return to_host((losses, state.params))


@pytest.mark.slow
def test_a_mesh_gives_the_result_of_one_device():
    got, wanted = work((2, 2, 2)), work((1, 1, 1))
    for ours, theirs in zip(got, wanted, strict=True):
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6 * scale)
