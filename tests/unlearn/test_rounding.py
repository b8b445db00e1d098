"""Stochastic rounding: exact means, small updates, protected weights, any devices, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import orl
from mmunlearner_jax.checkpoint import Checkpoints
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.optimizers import optimizers
from mmunlearner_jax.unlearn.rounding import rounded_sum, stochastically_rounded
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.unlearn.steps import TrainState

STRATA = 2**16
EVENLY = jnp.asarray(np.arange(STRATA) * (2**32 // STRATA) + 2**15, jnp.uint32)


def spacing(x):
    """Distance of bfloat16's neighbours at x, in NumPy."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(x), 2.0**-100))) - 7)


def test_the_mean_over_all_draws_is_the_exact_sum():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=200) * 10.0 ** rng.integers(-8, 3, 200)
    weights = np.array(jnp.asarray(weights, jnp.bfloat16), np.float64)
    updates = np.float32(weights * rng.normal(size=200) * 10.0 ** rng.integers(-4, 3, 200))
    weights[:20] = 0.0

    @jax.jit
    @jax.vmap
    def summed(w, u):
        return rounded_sum(jnp.broadcast_to(w, STRATA), jnp.broadcast_to(u, STRATA), EVENLY)

    found = np.array(summed(jnp.asarray(weights, jnp.bfloat16), updates), np.float64)
    exact = weights + updates.astype(np.float64)
    # A stratum of draws, and float32's rounding of a large update by itself.
    allowed = 1.01 * spacing(exact) / STRATA + 2.0**-23 * np.abs(updates)
    assert (np.abs(found.mean(axis=1) - exact) <= allowed).all()
    near = np.abs(found - exact[:, None])
    assert (near < 2 * spacing(exact)[:, None]).all()  # one of the neighbours, or of a coarser grid


def test_the_smallest_updates_have_their_chance():
    """A draw below the 2^32nd part moves a weight: 1e-8 of a weight is no rounding error."""
    w, u = jnp.ones(2, jnp.bfloat16), jnp.float32([1e-8, 1e-8])
    chance = np.float32(1e-8) * 2.0**7 * 2.0**32
    bits = jnp.uint32([np.floor(chance) - 1, np.floor(chance) + 1])
    np.testing.assert_array_equal(rounded_sum(w, u, bits) > 1, [True, False])


def test_what_is_not_finite_is_seen():
    w = jnp.array([jnp.nan, 3e38, 1.0, 1.0], jnp.bfloat16)
    u = jnp.float32([0.1, 3e38, jnp.nan, jnp.inf])
    assert not np.isfinite(np.array(rounded_sum(w, u, EVENLY[:4]), np.float32)).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_thousand_updates_of_a_millionth_arrive(sign):
    rng = np.random.default_rng(0)
    start = jnp.asarray(0.02 * rng.lognormal(size=2**15), jnp.bfloat16)
    updates = -sign * 1e-6 * start.astype(jnp.float32)

    def moved(tx):
        def step(carry, _):
            w, state = carry
            change, state = tx.update(updates, state, w)
            return (optax.apply_updates(w, change), state), None

        (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=1000)
        return np.array(end, np.float64) / np.array(start, np.float64) - 1

    assert not moved(optax.sgd(1.0)).any()
    arrived = moved(stochastically_rounded(optax.sgd(1.0)))
    error = arrived.std() / len(start) ** 0.5
    assert abs(arrived.mean() - sign * 1e-3) < 4 * error < 1e-4


def test_adam_in_bfloat16_goes_where_adam_in_float32_goes():
    """On average: the second moment, too, changes by less than bfloat16 shows."""
    rng = np.random.default_rng(0)
    scales = np.r_[np.ones(50), np.full(150, 0.05)].astype(np.float32)
    gradients = jnp.asarray(scales * (1 + rng.normal(size=200)), jnp.float32)
    copies = 2**13

    def end(tx, dtype, copies):
        def step(carry, gradient):
            w, state = carry
            change, state = tx.update(jnp.broadcast_to(gradient, w.shape).astype(dtype), state, w)
            return (optax.apply_updates(w, change), state), None

        w = jnp.ones(copies, dtype)
        (w, state), _ = jax.lax.scan(step, (w, tx.init(w)), gradients)
        return np.array(w, np.float64), state

    adam = optax.scale_by_adam(b2=0.99)
    rate = optax.chain(adam, optax.scale_by_learning_rate(1e-4))
    (exact,), _ = end(rate, jnp.float32, 1)
    rounded, state = end(stochastically_rounded(rate), jnp.bfloat16, copies)
    plain, _ = end(rate, jnp.bfloat16, 1)
    assert state.inner[0].nu.dtype == state.inner[0].mu.dtype == jnp.bfloat16
    error = rounded.std() / copies**0.5
    assert abs(rounded.mean() - exact) < 4 * error + 0.02 * abs(exact - 1)
    assert abs(plain.mean() - exact) > 0.5 * abs(exact - 1)


def options_of(**unlearn):
    config = orl.get_config()
    config.model.param_dtype = "bfloat16"
    config.unlearn.update(dict(learning_rate=1e-2, rounding="stochastic") | unlearn)
    return typed(config).unlearn


def weights(sharding=None):
    rng = np.random.default_rng(0)
    made = {"a": rng.normal(size=(8, 16)), "b": rng.normal(size=(4, 8, 16))}
    made["a"][:2] = -0.0
    return {k: jax.device_put(jnp.asarray(x, jnp.bfloat16), sharding) for k, x in made.items()}


def steps(tx, state, numbers, *, mask=None):
    """Takes a step with random gradients for each number."""
    extra = {} if mask is None else {"mask": mask}

    @jax.jit
    def step(state, gradients):
        params, (optimizer,) = state.params, state.opt_states
        updates, optimizer = tx.update(gradients, optimizer, params, **extra)
        return TrainState(optax.apply_updates(params, updates), (optimizer,))

    for n in numbers:
        rng = np.random.default_rng(n)
        gradients = {
            k: jnp.asarray(rng.normal(size=p.shape), p.dtype) for k, p in state.params.items()
        }
        state = step(state, gradients)
    return state


def same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.array(a).tobytes() == np.array(b).tobytes()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_protected_weights_keep_their_bits(accumulate):
    descend, ascend = optimizers(options_of(accumulate=accumulate), Schedule(8))
    state = steps(descend, TrainState.create(weights(), descend), range(2))  # momentum everywhere
    state = TrainState({**state.params, "a": weights()["a"]}, state.opt_states)
    before = {k: np.array(p) for k, p in state.params.items()}
    mask = {k: jnp.arange(p.size).reshape(p.shape) % 2 == 0 for k, p in state.params.items()}
    after = steps(ascend, state, range(2, 8), mask=mask).params
    for name, chosen in mask.items():
        old, new = before[name].view(np.uint16), np.array(after[name]).view(np.uint16)
        np.testing.assert_array_equal(new[~chosen], old[~chosen])
        assert (new[chosen] != old[chosen]).mean() > 0.9


def test_eight_devices_draw_what_one_draws():
    mesh = make_mesh((2, 2, 2))
    results = []
    for sharding in (None, NamedSharding(mesh, PartitionSpec(None, ("fsdp", "tensor")))):
        descend, _ = optimizers(options_of(clip=0.0), Schedule(8), seed=3)
        results.append(steps(descend, TrainState.create(weights(sharding), descend), range(3)))
    assert len(results[1].params["b"].sharding.device_set) == 8
    same_bits(*results)


def test_a_resumed_run_has_the_same_bits(tmp_path):
    descend, _ = optimizers(options_of(), Schedule(8), seed=5)
    begun = steps(descend, TrainState.create(weights(), descend), range(2))
    with Checkpoints(tmp_path / "saved", every=1) as saved:
        saved.save(2, begun, {})
    whole = steps(descend, begun, range(2, 5))
    with Checkpoints(tmp_path / "saved", every=1) as saved:
        restored, done = saved.restore(TrainState.create(weights(), descend), {})
    assert done == 2
    same_bits(steps(descend, restored, range(2, 5)), whole)


def test_seeds_and_kinds_of_step_draw_differently():
    descend, ascend = optimizers(options_of(optimizers=2, method="ga_diff"), Schedule(8), seed=1)
    other, _ = optimizers(options_of(), Schedule(8), seed=2)
    seeds = [int(tx.init(weights()).seed) for tx in (descend, ascend, other)]
    assert len({*seeds}) == 3
    one, two = (steps(tx, TrainState.create(weights(), tx), range(1)) for tx in (descend, other))
    assert any(
        (a != b).any() for a, b in zip(one.params.values(), two.params.values(), strict=True)
    )


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"model.param_dtype": "float32"}, "config.model.param_dtype='bfloat16'"),
        ({"unlearn.lora.rank": 4}, "adapters are float32"),
    ],
)
def test_where_there_is_nothing_to_round(values, wanted):
    config = orl.get_config()
    config.update_from_flattened_dict({"model.param_dtype": "bfloat16"})
    config.unlearn.rounding = "stochastic"
    check_config(typed(config), jax.devices()[:1])
    config.update_from_flattened_dict(values)
    with pytest.raises(InputError, match=f"config.unlearn.rounding is .*{wanted}"):
        check_config(typed(config), jax.devices()[:1])


def test_muon_is_refused():
    config = orl.get_config()
    config.finetune.rounding = "stochastic"
    with pytest.raises(InputError, match=r"config.finetune.rounding is .*optimizer='adamw'"):
        typed(config)
