"""Eight devices give what one gives: importance, a forget step, a retain step, decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig, cache_shardings
from mmunlearner_jax.models.llava import Llava, LlavaConfig, abstract_model
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import make_mesh, param_shardings, process_rows, put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, ascent_step, descent_step
from mmunlearner_jax.unlearn.transforms import masked_ascent

IMAGE = 31
CONFIG = LlavaConfig(
    vision=ClipConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8,
        patch_size=4,
    ),
    text=LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    image_token_id=IMAGE,
)
MESHES = [(8, 1, 1), (2, 2, 2)]


def initial():
    return nnx.split(Llava(CONFIG, rngs=nnx.Rngs(0)))[1]


def tiny_batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, IMAGE, (8, 12)).astype(np.int32)
    ids[:, 2:6] = IMAGE
    labels = np.where(np.arange(12) >= 9, ids, -100).astype(np.int32)
    pixels = rng.normal(size=(8, 1, 3, 8, 8)).astype(np.float32)
    mask = np.ones_like(ids)
    return dict(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=pixels)


def work(sizes):
    """Importance both ways, then a forget and a retain step, then an answer; whole arrays."""
    count = int(np.prod(sizes))
    mesh = make_mesh(sizes, jax.devices()[:count])
    graphdef, _ = abstract_model(CONFIG, mesh)
    shardings = param_shardings(initial(), mesh)
    params = jax.device_put(initial(), shardings)
    batch = put_batch({k: v[process_rows(mesh, 8)] for k, v in tiny_batch().items()}, mesh)
    importances = [
        accumulator(graphdef, fisher=fisher)(FisherSums.zeros(params), params, batch)
        for fisher in ("example", "batch")
    ]
    key = jax.random.key(0)
    mask = jax.tree.map(lambda p: jax.random.bernoulli(key, 0.5, p.shape), initial())
    mask = jax.device_put(mask, shardings)
    # SGD: Adam's division by |g| would turn rounding into whole steps.
    sgd = optax.sgd(0.5)
    state = TrainState.create(jax.tree.map(jnp.copy, params), sgd)
    state, up = ascent_step(graphdef, masked_ascent(sgd))(state, [batch], mask)
    state, down = descent_step(graphdef, sgd)(state, [batch])
    for leaf, start in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.is_equivalent_to(start.sharding, leaf.ndim)

    decoder = Decoder(graphdef, max_new_tokens=3, end_id=0)
    prompt = {k: v for k, v in batch.items() if k != "labels"}
    logits, cache = decoder.prefill(params, prompt)
    wanted = cache_shardings(cache, mesh)
    assert cache.keys.sharding.is_equivalent_to(wanted.keys, cache.keys.ndim)
    tokens, _ = decoder.greedy(params, logits, cache, np.zeros((8, 1), np.int32))
    return to_host((*importances, state.params, up, down, tokens))


@pytest.fixture(scope="module")
def one_device():
    return work((1, 1, 1))


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_any_mesh_gives_the_result_of_one_device(one_device, sizes):
    assert_close(work(sizes), one_device)


def assert_close(got, expected):
    for one, many in zip(expected, got, strict=True):
        ones, manys = jax.tree.leaves(one), jax.tree.leaves(many)
        # Gradients that are 0 but for rounding (a key's bias) have no scale of their own.
        scale = max(np.abs(leaf).max() for leaf in ones)
        for x, y in zip(ones, manys, strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-6 * scale)


def test_parameters_are_really_split():
    mesh = make_mesh((2, 2, 2))
    kernel = jax.device_put(initial(), param_shardings(initial(), mesh))["language_model"][
        "layers"
    ]["q_proj"]["kernel"].get_value()
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 8)}
