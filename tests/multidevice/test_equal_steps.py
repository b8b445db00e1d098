"""Gradients ahead, and ascent divided by importances, on eight devices and on one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.control_masks import drawn_mask
from mmunlearner_jax.unlearn.lookahead import Ahead
from mmunlearner_jax.unlearn.preconditioned import preconditioned, recorded
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import in_groups
from tests.helpers.meshes import CONFIG, initial, tiny_batch

RING = 2


def work(sizes):
    """Two retain and forget steps in turn; whole arrays."""
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    graphdef, _ = abstract_model(CONFIG, mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    frozen, moving = nnx.split_state(params, in_groups("llava", ("language",)), ...)
    preserve = jax.tree.map(lambda p: 1e-4 + p**2, moving)
    mask = drawn_mask(moving, 0.5, seed=0)
    # SGD and a small rate: Adam's division by |g| would turn rounding into whole steps.
    nothing, sgd = optax.identity(), optax.sgd(1e-3)
    descent = optax.chain(recorded(nothing, RING), sgd)
    ascent = masked_ascent(optax.chain(preconditioned(nothing, RING, 1.0), sgd))
    state = TrainState.create(jax.tree.map(jnp.copy, moving), descent)
    ascend = forget_step(graphdef, ascent, ahead=Ahead(2, 1e-6))
    descend = retain_step(graphdef, descent)
    forget, retain, shown = (put_batch(tiny_batch(seed), mesh) for seed in (0, 1, 2))
    losses = []
    for _ in range(2):
        state, down = descend(state, [retain], frozen)
        state, up = ascend(state, [forget, shown], mask, frozen, preserve)
        losses += [up, down]
    (ring, *_), *_ = state.opt_states
    for kept in (state.params, *ring.ring):
        for leaf, like in zip(jax.tree.leaves(kept), jax.tree.leaves(moving), strict=True):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    moved = jax.tree.map(lambda new, old: new - old, state.params, moving)
    return to_host((losses, moved))


@pytest.mark.slow
def test_a_mesh_gives_the_result_of_one_device():
    got, wanted = work((2, 2, 2)), work((1, 1, 1))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted[1]))
    for x, y in zip(*(jax.tree.leaves(moved) for _, moved in (got, wanted)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3 * scale)
