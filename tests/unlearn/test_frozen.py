"""Frozen groups: nothing of them is moved, measured or differentiated, and the rest is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.planning.costs import flops
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import in_groups, leaf_labels
from tests.helpers.questions import PICTURES, assert_close, llava, qwen2_5_vl, qwen2_vl, whole


@pytest.fixture(params=[llava, qwen2_vl, qwen2_5_vl], ids=lambda make: make.__name__)
def made(request):
    model, encoder = request.param()
    return model, whole(PICTURES, encoder, 1)


def apart(model, tree, groups):
    frozen, moving = nnx.split_state(tree, in_groups(model.config.model_type, groups), ...)
    return frozen, moving


@pytest.mark.parametrize("groups", [(), ("vision",), ("projector", "language")])
def test_groups_are_those_of_the_labels(made, groups):
    model, _ = made
    frozen, moving = apart(model, leaf_labels(model)[1], groups)
    assert set(jax.tree.leaves(frozen)) == set(groups)
    assert set(jax.tree.leaves(moving)) == {"vision", "projector", "language"} - set(groups)


@pytest.mark.parametrize(
    ("fisher", "groups"),
    [("example", ("vision",)), ("example", ("language",)), ("batch", ("vision", "projector"))],
)
def test_importance_of_the_others_is_the_same(made, fisher, groups):
    model, batch = made
    graphdef, params = nnx.split(model)
    frozen, moving = apart(model, params, groups)
    add = accumulator(graphdef, fisher=fisher)
    with jax.default_matmul_precision("highest"):
        wanted = add(FisherSums.zeros(params), params, batch)
        got = add(FisherSums.zeros(moving), moving, batch, frozen)
    assert got.count == wanted.count
    assert_close(got.squares, apart(model, wanted.squares, groups)[1])


@pytest.mark.parametrize("groups", [("vision",), ("language",)])
def test_steps_move_the_others_only(made, groups):
    model, batch = made
    graphdef, params = nnx.split(model)
    frozen, moving = apart(model, params, groups)
    # SGD: Adam's division by |g| would turn rounding into whole steps.
    sgd = optax.sgd(0.1, momentum=0.9)
    mask = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) % 2 == 0, params)
    descend, ascend = retain_step(graphdef, sgd), forget_step(graphdef, masked_ascent(sgd))
    before = jax.tree.map(np.array, (frozen, moving))
    whole = TrainState.create(jax.tree.map(jnp.copy, params), sgd)
    state = TrainState.create(jax.tree.map(jnp.copy, moving), sgd)
    assert jax.tree.map(jnp.shape, state.opt_states[0][0].trace) == jax.tree.map(jnp.shape, moving)
    with jax.default_matmul_precision("highest"):
        _, wanted = descend(whole, [batch])
        state, loss = descend(state, [batch], frozen)
        np.testing.assert_allclose(loss, wanted, rtol=1e-6)
        state, _ = ascend(state, [batch], apart(model, mask, groups)[1], frozen)
    assert jax.tree.structure(state.params) == jax.tree.structure(moving)
    for old, new in zip(jax.tree.leaves(before[0]), jax.tree.leaves(frozen), strict=True):
        np.testing.assert_array_equal(old, new)
    moved = [
        np.any(old != new)
        for old, new in zip(jax.tree.leaves(before[1]), jax.tree.leaves(state.params), strict=True)
    ]
    assert np.mean(moved) > 0.8  # the last norm of CLIP is not used


def test_what_is_frozen_costs_no_backward_pass(made):
    model, batch = made
    graphdef, params = nnx.split(model)
    adam = optax.adam(1e-3)
    step = retain_step(graphdef, adam)

    def cost(groups, batch):
        frozen, moving = apart(model, params, groups)
        state = TrainState.create(moving, adam)
        return flops(jax.make_jaxpr(step)(state, [batch], frozen))

    pictures = {k: v for k, v in batch.items() if k in ("pixel_values", "image_grid_thw")}

    def see(params):
        return nnx.merge(graphdef, params).vision_features(**pictures)

    forward = flops(jax.make_jaxpr(see)(params))
    seen = {k: v for k, v in batch.items() if k != "pixel_values"}
    seen["vision_features"] = jax.eval_shape(see, params)
    assert cost(("vision",), batch) == cost(("vision",), seen) + forward
    assert cost((), batch) > cost(("vision",), batch) + forward
