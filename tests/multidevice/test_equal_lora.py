"""Adapters on eight devices give what they give on one, and are split like their weights' sides."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from tests.helpers.meshes import CONFIG, initial, tiny_batch


def attached(sizes, masked):
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    graphdef, _ = abstract_model(dataclasses.replace(CONFIG, remat="dots"), mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    mask = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) % 3 == 0, params)
    mask = jax.tree.map(lambda m, p: jax.device_put(m, p.sharding), mask, params)
    targets = [path for path in lora.linears(graphdef, params) if path[-1] != "lm_head"]
    given = dict(rank=2, alpha=1.0, mask=mask if masked else None)
    return mesh, *lora.attach(graphdef, params, targets, **given)


def work(sizes, masked):
    """Four forget and retain steps in turn; whole arrays."""
    mesh, graphdef, adapters, frozen = attached(sizes, masked)
    # As in `test_equal`: SGD, and steps so small that no rounding is magnified.
    sgd = optax.sgd(0.1)
    state = TrainState.create(lora.initial(adapters, 0), sgd)
    chosen = jax.tree.map(lambda x: jnp.ones_like(x, bool), state.params)
    ascend, descend = forget_step(graphdef, masked_ascent(sgd)), retain_step(graphdef, sgd)
    forget, retain = (put_batch(tiny_batch(seed), mesh) for seed in (0, 1))
    losses = []
    for _ in range(4):
        state, up = ascend(state, [forget], chosen, frozen)
        state, down = descend(state, [retain], frozen)
        losses += [up, down]
    for leaf, like in zip(jax.tree.leaves(state.params), jax.tree.leaves(adapters), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    merged = lora.merged(graphdef, state.params, frozen)
    return to_host((losses, state.params, merged))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_a_mesh_gives_the_result_of_one_device(masked):
    got, wanted = work((2, 2, 2), masked), work((1, 1, 1), masked)
    assert any(np.any(x) for x in jax.tree.leaves(wanted[1]))
    for ours, theirs in zip(got, wanted, strict=True):
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6 * scale)


def test_adapters_are_split_like_the_sides_of_their_weights():
    _, _, adapters, _ = attached((2, 2, 2), True)
    layer = lora.initial(adapters, 0)["language_model"]["layers"]["gate_proj"]["lora"]
    shards = {
        name: {s.data.shape for s in layer[name].get_value().addressable_shards}
        for name in ("lora_a", "lora_b")
    }
    # The kernel [2, 16, 24] is split by its inputs over fsdp, by its outputs over tensor.
    assert shards == {"lora_a": {(2, 2, 8)}, "lora_b": {(2, 12, 2)}}
