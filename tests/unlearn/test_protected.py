"""Fifty forget steps among retain steps: what both semantics do to protected weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.unlearn.optimizers import optimizers, state_optimizers
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_descent
from tests.helpers.models import filled
from tests.helpers.tokens import CONFIG, IDS, LABELS

STEPS, RATE = 50, 1e-4
FORGET = {"input_ids": IDS, "labels": LABELS, "answer_places": answer_places(LABELS)}
RETAIN = {**FORGET, "input_ids": (IDS + 5) % 15}


def options_of(semantics="paper", **unlearn):
    config = orl.get_config(semantics)
    config.unlearn.update(unlearn)
    return typed(config).unlearn


def host(tree):
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def walked(semantics):
    """How far protected weights went in forget steps alone, in learning rates, by weight."""
    options = options_of(semantics, learning_rate=RATE)
    schedule = Schedule(STEPS)
    descend, ascend = optimizers(options, schedule)
    graphdef, params = nnx.split(filled(CONFIG))
    mask = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) % 2 == 0, params)
    state = TrainState.create(params, *((ascend, descend)[-options.optimizers :]))
    forget, retain = forget_step(graphdef, ascend), retain_step(graphdef, descend)
    paths = [np.zeros(leaf.shape) for leaf in jax.tree.leaves(params)]
    for _, forgets, retains in schedule.steps():
        assert (forgets, retains) == (1, 1)
        before = host(state.params)
        state, _ = forget(state, [FORGET], mask)
        for path, old, new in zip(paths, before, host(state.params), strict=True):
            path += np.abs(new - old)
        state, _ = retain(state, [RETAIN])
    chosen = host(mask)
    protected = np.concatenate([p[~m] for p, m in zip(paths, chosen, strict=True)])
    free = np.concatenate([p[m] for p, m in zip(paths, chosen, strict=True)])
    return protected / RATE, free / RATE


def test_paper_keeps_them_bit_identical():
    protected, free = walked("paper")
    assert not protected.any()
    assert np.median(free[free > 0]) > 1


def test_released_moves_them_by_the_momentum_of_retain_steps():
    """Each forget step drags a protected weight along by a good part of a learning rate (D-03)."""
    protected, _ = walked("released")
    moved = protected[protected > 0]
    assert len(moved) > 0.3 * len(protected)  # CLIP is not asked about text
    assert 0.2 * STEPS < np.median(moved) < STEPS


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_of_several_batches_is_the_step_of_their_mean_gradient(accumulate):
    """Against NumPy: mean, clip, mask, Adam, mask, alpha; once for all batches of a step."""
    options = options_of(
        method="ga", accumulate=accumulate, clip=0.5, alpha=2.0, learning_rate=0.1, decay="linear"
    )
    schedule = Schedule(4, retains=False)
    _, ascend = optimizers(options, schedule)
    rng = np.random.default_rng(0)
    w = rng.normal(size=5).astype(np.float32)
    mask = np.array([True, True, False, True, False])
    gradients = rng.normal(size=(4, accumulate, 5)).astype(np.float32)
    params = jnp.asarray(w)
    state = ascend.init(params)
    m = v = np.zeros(5)
    for step, group in enumerate(gradients):
        for gradient in group:
            updates, state = ascend.update(
                jnp.asarray(gradient), state, params, mask=jnp.asarray(mask)
            )
            params = optax.apply_updates(params, updates)
        g = group.mean(axis=0)
        g = -np.where(mask, g * min(1, 0.5 / np.linalg.norm(g)), 0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        # In float32, as optax counts: 1 - 0.999 has but four digits there.
        begun = [1 - np.float32(b) ** np.float32(step + 1) for b in (0.9, 0.999)]
        scaled = (m / begun[0]) / (np.sqrt(v / begun[1]) + 1e-6)
        w = w - np.where(mask, 2.0 * 0.1 * (1 - step / 4) * scaled, 0)
        np.testing.assert_allclose(params, w, rtol=1e-5)


def test_ascent_by_sgd_beside_descent_by_adam():
    """A clipped gradient is added where the mask is; retain steps keep a state of their own."""
    options = options_of(forget_optimizer="sgd", optimizers=2, clip=0.5, learning_rate=0.1)
    ascend, descend = state_optimizers(options, Schedule(1))
    w, gradient = jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, 4.0, 0.0])
    mask = jnp.array([True, False, True])
    updates, _ = ascend.update(gradient, ascend.init(w), w, mask=mask)
    np.testing.assert_allclose(updates, [0.1 * 0.5 * 3 / 5, 0.0, 0.0], rtol=1e-6)
    updates, _ = descend.update(gradient, descend.init(w), w)
    np.testing.assert_allclose(updates, [-0.1, -0.1, 0.0], rtol=1e-4)  # Adam's first step
    state = TrainState.create(w, ascend, descend)
    assert len(jax.tree.leaves(state.opt_states[0])) < len(jax.tree.leaves(state.opt_states[1]))


def test_no_clip():
    options = options_of(method="ga", clip=0.0, learning_rate=1.0, adam_eps=1e3)
    _, ascend = optimizers(options, Schedule(1, retains=False))
    gradient = jnp.array([300.0, 400.0])
    updates, _ = ascend.update(gradient, ascend.init(gradient), gradient, mask=jnp.ones(2, bool))
    np.testing.assert_allclose(updates, gradient / (gradient + 1e3), rtol=1e-5)


def test_masked_descent_lowers():
    tx = masked_descent(optax.sgd(0.5))
    w, mask = jnp.array([1.0, 1.0]), jnp.array([True, False])
    updates, _ = tx.update(2 * w, tx.init(w), w, mask=mask)
    np.testing.assert_array_equal(optax.apply_updates(w, updates), [0.0, 1.0])
