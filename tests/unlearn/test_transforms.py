"""Masked ascent: under jit, over steps, sharded, in bfloat16, against a NumPy rendering."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.transforms import masked_ascent

W = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
G = np.array([[0.3, -0.1], [-0.2, 0.4]], np.float32)
MASK = np.array([[True, False], [False, True]])


def adam_in_numpy(w, grads, lr, b1=0.9, b2=0.999, eps=1e-8):
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


@pytest.mark.parametrize("mask_on", ["update", "gradient"])
def test_ascends_like_adam_on_the_negated_masked_gradient(mask_on):
    tx = masked_ascent(optax.adam(1e-2), mask_on=mask_on)
    w, state = jnp.asarray(W), tx.init(jnp.asarray(W))
    for _ in range(3):
        updates, state = jax.jit(tx.update)(jnp.asarray(G), state, w, mask=jnp.asarray(MASK))
        w = optax.apply_updates(w, updates)
    expected = adam_in_numpy(W, [-G * MASK] * 3, 1e-2)
    np.testing.assert_allclose(w, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(w)[~MASK], W[~MASK])


@pytest.mark.parametrize("mask_on", ["update", "gradient"])
def test_a_mask_of_bits_is_the_mask(mask_on):
    """Packed along the first axis, whose length is no multiple of eight."""
    rng = np.random.default_rng(0)
    w, g, mask = rng.normal(size=(11, 3)), rng.normal(size=(11, 3)), rng.random((11, 3)) < 0.5
    tx = masked_ascent(optax.adam(1e-2), mask_on=mask_on)
    params = {"a": jnp.float32(w), "b": jnp.float32(w[:5, 0])}
    grads = {"a": jnp.float32(g), "b": jnp.float32(g[:5, 0])}
    masks = {"a": jnp.asarray(mask), "b": jnp.asarray(mask[:5, 0])}
    bits = jax.tree.map(lambda m: jnp.packbits(m, axis=0), masks)
    step = jax.jit(tx.update)
    wanted, got = (step(grads, tx.init(params), params, mask=m)[0] for m in (masks, bits))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_the_loss_rises():
    def loss(w):
        return jnp.sum(w**2)

    tx = masked_ascent(optax.sgd(0.1))
    w = jnp.asarray(W)
    updates, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, mask=jnp.asarray(MASK))
    assert loss(optax.apply_updates(w, updates)) > loss(w)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_protected_weights_after_retain_steps_with_a_shared_state(decay):
    """Momentum and decay move them in the released semantics, nothing does in the paper's."""
    moved = {}
    for mask_on in ("update", "gradient"):
        inner = optax.adamw(1e-2, weight_decay=decay)
        tx = masked_ascent(inner, mask_on=mask_on)
        w, state = jnp.asarray(W), inner.init(jnp.asarray(W))
        updates, state = inner.update(jnp.asarray(G), state, w)  # a retain step, all weights
        w = before = optax.apply_updates(w, updates)
        updates, state = tx.update(jnp.asarray(G), state, w, mask=jnp.asarray(MASK))
        w = optax.apply_updates(w, updates)
        moved[mask_on] = np.asarray(w != before)
    np.testing.assert_array_equal(moved["update"], MASK)
    assert moved["gradient"].all()


def test_alpha_scales_the_update_and_does_not_cancel():
    updates = [
        masked_ascent(optax.adam(1e-2), alpha=alpha).update(
            jnp.asarray(G), optax.adam(1e-2).init(jnp.asarray(W)), mask=jnp.asarray(MASK)
        )[0]
        for alpha in (1.0, 0.25)
    ]
    np.testing.assert_allclose(0.25 * updates[0], updates[1], rtol=1e-6)


def test_bfloat16_and_chain_keep_dtype():
    tx = optax.chain(optax.clip_by_global_norm(1.0), masked_ascent(optax.sgd(0.5)))
    w = jnp.asarray(W, jnp.bfloat16)
    updates, _ = tx.update(jnp.asarray(G, jnp.bfloat16), tx.init(w), w, mask=jnp.asarray(MASK))
    assert updates.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(updates == 0), ~MASK)


def test_sharding_is_kept_and_the_result_is_that_of_one_device():
    mesh = make_mesh((2, 2, 2))
    sharding = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    tx = masked_ascent(optax.adam(1e-2))

    def step(w, g, mask):
        updates, state = tx.update(g, tx.init(w), w, mask=mask)
        return optax.apply_updates(w, updates), state

    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 8, 16)).astype(np.float32)
    mask = rng.random((8, 16)) < 0.5
    one, _ = jax.jit(step)(w, g, mask)
    many, state = jax.jit(step)(*(jax.device_put(x, sharding) for x in (w, g, mask)))
    assert many.sharding.is_equivalent_to(sharding, 2)
    assert state[0].mu.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(one, many)


def test_an_unknown_place_for_the_mask_is_an_error():
    with pytest.raises(ValueError, match="mask_on"):
        masked_ascent(optax.sgd(1.0), mask_on="nowhere")  # pyright: ignore[reportArgumentType]
