"""States and iterators come back bit by bit; trees of another model are refused."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmunlearner_jax import preemption
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.steps import TrainState

EVERY = 3
SPEC = PartitionSpec("fsdp", "tensor")
TX = optax.adam(1e-2)


def sharding(*sizes: int) -> NamedSharding:
    return NamedSharding(make_mesh(sizes), SPEC)


def initial(target: Any = None) -> TrainState:
    rng = np.random.default_rng(0)
    params = {
        "kernel": jax.device_put(rng.normal(size=(8, 4)).astype(np.float32), target),
        "half": jax.device_put(rng.normal(size=(8, 8)).astype(jnp.bfloat16), target),
    }
    return TrainState.create(params, TX)


def batches(seed: int) -> grain.DatasetIterator:
    """As the pipeline makes them: shuffled, for ever, prepared ahead in threads."""
    data = grain.MapDataset.range(10).seed(seed).shuffle().repeat().batch(4)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(data.random_map(noisy).to_iter_dataset(options))


def noisy(indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return indices + rng.normal(size=indices.shape)


@jax.jit
def step(state: TrainState, batch: jax.Array) -> TrainState:
    grads = jax.tree.map(lambda p: (jnp.mean(batch) * jnp.sin(p)).astype(p.dtype), state.params)
    updates, opt = TX.update(grads, state.opt_states[0], state.params)
    return TrainState(optax.apply_updates(state.params, updates), (opt,))


def train(folder: Path, state: TrainState, until: int) -> tuple[TrainState, list[np.ndarray], int]:
    """Runs, or goes on: the state, the batches seen and the first step."""
    data, seen = {"a": batches(0), "b": batches(1)}, []
    with Checkpoints(folder, every=EVERY) as saved:
        state, start = saved.restore(state, data)
        for i in range(start + 1, until + 1):
            seen.append(np.stack([next(it) for it in data.values()]))
            state = step(state, seen[-1])
            saved.save(i, state, data)
    return state, seen, start


def assert_same_bits(tree: Any, other: Any):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_without_a_checkpoint_there_is_the_initial_state(tmp_path):
    state, data = initial(), {"a": batches(0)}
    with Checkpoints(tmp_path / "new", every=1) as saved:
        restored, start = saved.restore(state, data)
    assert (restored, start) == (state, 0)


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole, seen, _ = train(tmp_path / "whole", initial(), 11)
    train(tmp_path / "killed", initial(), 8)  # steps 7 and 8 are lost
    state, seen_again, start = train(tmp_path / "killed", initial(), 11)
    assert start == 6
    np.testing.assert_array_equal(seen_again, seen[start:])
    assert_same_bits(state, whole)


def test_the_restored_state_is_the_saved_one(tmp_path):
    saved, _, _ = train(tmp_path, initial(), EVERY)
    restored, seen, start = train(tmp_path, initial(), EVERY)
    assert (start, seen) == (EVERY, [])
    assert_same_bits(restored, saved)


def test_only_the_latest_are_kept(tmp_path):
    train(tmp_path, initial(), 4 * EVERY)
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [9, 12]
    with Checkpoints(tmp_path, every=1, keep=1) as saved:
        state, data = initial(), {"a": batches(0), "b": batches(1)}
        state, at = saved.restore(state, data)
        saved.save(at, state, data)  # there already
        saved.save(at + 1, state, data)
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [13]


@pytest.fixture
def watched():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    preemption.watch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    preemption._Notice.came = False


def test_sigterm_saves_between_times_and_ends_the_loop(tmp_path, watched):
    whole, _, _ = train(tmp_path / "whole", initial(), 8)
    state, data = initial(), {"a": batches(0), "b": batches(1)}
    with pytest.raises(preemption.Preempted), Checkpoints(tmp_path / "run", every=EVERY) as saved:
        for i in range(1, 9):
            state = step(state, np.stack([next(it) for it in data.values()]))
            if i == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            saved.save(i, state, data)
    preemption._Notice.came = False
    resumed, _, start = train(tmp_path / "run", initial(), 8)
    assert start == 5
    assert_same_bits(resumed, whole)


def test_sigterm_after_the_last_step_of_a_loop_is_not_forgotten(tmp_path, watched):
    state, data = initial(), {"a": batches(0), "b": batches(1)}
    with pytest.raises(preemption.Preempted), Checkpoints(tmp_path, every=EVERY) as saved:
        saved.save(EVERY, state, data)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    assert (tmp_path / str(EVERY)).is_dir()


def test_processes_ask_with_numbers_that_only_grow(monkeypatch):
    asked = []
    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        preemption.multihost_utils, "reached_preemption_sync_point", lambda n: asked.append(n)
    )
    for _ in range(2):  # two loops, whose steps begin anew, and what lies between
        assert not preemption.due() and not preemption.due()
        preemption.heed()
    assert asked == list(range(asked[0], asked[0] + 6))


def test_sigterm_outside_of_a_loop_ends_at_once(watched):
    with pytest.raises(preemption.Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_what_a_kill_left_is_removed(tmp_path):
    train(tmp_path, initial(), 2 * EVERY)
    (tmp_path / f".{3 * EVERY}.partial" / "half").mkdir(parents=True)
    assert train(tmp_path, initial(), 2 * EVERY)[2] == 2 * EVERY
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(EVERY), str(2 * EVERY)]


@pytest.mark.parametrize("sizes", [(1, 4, 2), (4, 2, 1)])
def test_a_run_goes_on_on_another_mesh(tmp_path, sizes):
    saved, _, _ = train(tmp_path, initial(sharding(2, 2, 2)), EVERY)
    target = sharding(*sizes)
    state, seen, start = train(tmp_path, initial(target), EVERY)
    assert (start, seen) == (EVERY, [])
    assert_same_bits(state, saved)
    assert all(p.sharding == target for p in jax.tree.leaves(state.params))
    # Going on needs all of the state on the same devices.
    on, _, start = train(tmp_path, initial(target), EVERY + 1)
    assert start == EVERY
    assert all(np.isfinite(np.asarray(p, np.float32)).all() for p in jax.tree.leaves(on.params))


TREE = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.arange(5, dtype=np.uint8)}


def like(tree: Any, target: Any = None) -> Any:
    target = target or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=target), tree)


def test_a_tree_returns(tmp_path):
    save_tree(tmp_path / "tree", jax.tree.map(jnp.asarray, TREE))
    assert_same_bits(load_tree(tmp_path / "tree", like(TREE)), TREE)


def test_a_tree_of_one_sharding_is_read_in_another(tmp_path):
    params = initial(sharding(1, 4, 2)).params
    save_tree(tmp_path / "tree", params)
    target = sharding(4, 2, 1)
    loaded = load_tree(tmp_path / "tree", like(params, target))
    assert_same_bits(loaded, params)
    assert all(p.sharding == target for p in loaded.values())


def test_a_tree_is_replaced(tmp_path):
    save_tree(tmp_path / "tree", jax.tree.map(jnp.asarray, TREE))
    other = jax.tree.map(lambda x: jnp.asarray(x) + 1, TREE)
    save_tree(tmp_path / "tree", other)
    assert_same_bits(load_tree(tmp_path / "tree", like(TREE)), other)


@pytest.mark.parametrize(
    "other",
    [
        TREE | {"a": TREE["a"].T},
        TREE | {"a": TREE["a"].astype(np.int32)},
        TREE | {"c": TREE["b"]},
        {"a": TREE["a"]},
    ],
    ids=["shape", "dtype", "more", "fewer"],
)
def test_a_tree_of_another_model_is_refused(tmp_path, other):
    save_tree(tmp_path / "tree", jax.tree.map(jnp.asarray, TREE))
    with pytest.raises(InputError, match="tree was written for another model.*remove it") as error:
        load_tree(tmp_path / "tree", like(other))
    assert "\n" not in str(error.value)


def test_a_missing_tree_is_named(tmp_path):
    with pytest.raises(InputError, match="mask is missing: run the stage"):
        load_tree(tmp_path / "mask", like(TREE))
