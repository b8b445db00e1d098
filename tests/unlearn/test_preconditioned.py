"""Preconditioned ascent against NumPy: divided, projected, scaled, masked; what a state records."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.unlearn.optimizers import optimizers
from mmunlearner_jax.unlearn.preconditioned import without
from mmunlearner_jax.unlearn.schedule import Schedule

RATE, DAMPING, RING = 0.1, 0.5, 2
SHAPES = {"vision": {"a": (4, 5), "b": (3,)}, "language": {"c": (15,)}}
OPTIONS = {"method": "mmunlearner", "forget_optimizer": "preconditioned", "clip": 0.0}
OPTIONS |= {"learning_rate": RATE, "alpha": 2.0}


def tree(seed, draw="standard_normal"):
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return jnp.asarray(getattr(rng, draw)(size=shape), jnp.float32)

    return jax.tree.map(leaf, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


MASK = jax.tree.map(lambda x: x < 0.6, tree(9, "random"))


def made(**more):
    config = orl.get_config()
    config.unlearn.update(OPTIONS | more)
    config.unlearn.precondition.update(dict(damping=DAMPING, ring=RING))
    return optimizers(typed(config).unlearn, Schedule(4))


def flat(*trees):
    return [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)], dtype=float) for t in trees]


def in_numpy(gradient, preserve, ring):
    """The update of the weights, one vector."""
    gradient, preserve, mask = flat(gradient, preserve, MASK)
    mask = mask.astype(bool)
    roots = np.sqrt(preserve)
    ascent = np.where(mask, gradient / (roots + DAMPING * roots[mask].mean()), 0)
    rows = np.array([np.where(mask, row, 0) for row in flat(*ring)])
    size = sum(x.size for x in jax.tree.leaves(tree(0)["language"]))
    for module in (slice(0, size), slice(size, None)):  # jax sorts the keys
        part = rows[:, module]
        along, *_ = np.linalg.lstsq(part.T, ascent[module], rcond=None)
        ascent[module] -= part.T @ along
    ascent *= np.sqrt(mask.sum() / np.sum(ascent**2))
    return 2.0 * RATE * ascent


def test_an_update_is_what_numpy_gives():
    descend, ascend = made()
    params, preserve = tree(0), tree(1, "standard_exponential")
    state, ring = descend.init(params), []
    for seed in (2, 3, 4):  # the ring keeps the last two
        ring = [tree(seed), *ring][:RING]
        _, state = descend.update(ring[0], state, params)
    update = jax.jit(ascend.update)
    updates, after = update(tree(5), state, params, mask=MASK, preserve=preserve)
    wanted = in_numpy(tree(5), preserve, ring)
    np.testing.assert_allclose(*flat(updates), wanted, rtol=1e-5, atol=1e-5 * abs(wanted).max())
    kept = [jax.tree.leaves(x[1][0]) for x in (state, after)]  # Adam's moments and the ring
    assert all(map(np.array_equal, *kept)) and len(kept[0]) > 2 * RING


def test_retain_steps_are_adams_and_their_loss_stays_to_first_order():
    descend, ascend = made()
    plain, _ = made(forget_optimizer="adamw")
    params, retained = tree(0), tree(2)
    state, alone = descend.init(params), plain.init(params)
    updates, state = descend.update(retained, state, params)
    wanted, _ = plain.update(retained, alone, params)
    jax.tree.map(np.testing.assert_array_equal, updates, wanted)
    updates, _ = ascend.update(tree(5), state, params, mask=MASK, preserve=tree(1, "random"))
    for module in SHAPES:
        moved, gradient = flat(updates[module], retained[module])
        assert abs(moved @ gradient) < 1e-5 * np.linalg.norm(moved) * np.linalg.norm(gradient)


def test_protected_weights_stay_bit_by_bit():
    descend, ascend = made(weight_decay=0.1)
    params = jax.tree.map(lambda x: x.at[..., 0].set(-0.0), tree(0))
    _, state = descend.update(tree(2), descend.init(params), params)
    updates, _ = ascend.update(tree(5), state, params, mask=MASK, preserve=tree(1, "random"))
    after = optax.apply_updates(params, updates)
    for old, new, mask in zip(*map(jax.tree.leaves, (params, after, MASK)), strict=True):
        same = np.asarray(old).view(np.int32) == np.asarray(new).view(np.int32)
        np.testing.assert_array_equal(same[~mask], True)
        assert not same[mask].all()


def test_nothing_is_taken_out_before_the_first_retain_step():
    nothing = jax.tree.map(jnp.zeros_like, tree(1))
    jax.tree.map(np.testing.assert_array_equal, without(tree(0), [nothing, nothing]), tree(0))
    twice = without(tree(0), [tree(1), tree(1)])  # dependent gradients
    once = without(tree(0), [tree(1)])
    np.testing.assert_allclose(*flat(twice, once), atol=1e-5)
