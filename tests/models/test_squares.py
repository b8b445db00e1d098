import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import squares
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from tests.helpers.per_example import in_one_pass, losses


@functools.partial(jax.jit, static_argnums=0)
def one_by_one(graphdef, params, batch):
    def squared(example):
        example = jax.tree.map(lambda x: x[None], example)
        loss, gradients = jax.value_and_grad(lambda p: losses(graphdef, p, example)[0])(params)
        return loss, jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), gradients)

    return jax.tree.map(lambda s: jnp.sum(s, 0), jax.vmap(squared)(batch))


@functools.partial(jax.jit, static_argnums=0)
def all_together(graphdef, params, batch):
    def loss(params):
        return jnp.sum(losses(graphdef, params, batch))

    loss, gradients = jax.value_and_grad(loss)(params)
    return loss, jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), gradients)


models = pytest.mark.parametrize(
    ("tied", "remat", "dtype"),
    [(False, "none", "float32"), (False, "full", "bfloat16"), (True, "dots", "float32")],
)


@models
def test_equal_to_gradients_of_single_examples(make_model, batch, tied, remat, dtype):
    graphdef, params = nnx.split(make_model(tied=tied, remat=remat))
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    wanted_loss, wanted = one_by_one(graphdef, params, batch)
    loss, got = in_one_pass(graphdef, params, batch)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    for (path, a), (_, b) in zip(nnx.to_flat_state(got), nnx.to_flat_state(wanted), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a[...], b[...], rtol=1e-4, atol=1e-6, err_msg=str(path))
        # Nothing lies behind these: the last norm is not used, keys' biases cancel in the softmax.
        if path[1] != "post_norm" and path[-2:] != ("k_proj", "bias"):
            assert np.max(b[...]) > 1e-3, path


@models
def test_equal_to_the_gradient_of_the_batch(make_model, batch, tied, remat, dtype):
    graphdef, params = nnx.split(make_model(tied=tied, remat=remat))
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    wanted_loss, wanted = all_together(graphdef, params, batch)
    loss, got = in_one_pass(graphdef, params, batch, "batch")
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    for (path, a), (_, b) in zip(nnx.to_flat_state(got), nnx.to_flat_state(wanted), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a[...], b[...], rtol=1e-4, atol=1e-6, err_msg=str(path))


def test_the_gradient_of_the_batch_never_exists_whole():
    config = LlavaConfig(
        vision=ClipConfig(8, 8, 1, 2, image_size=4, patch_size=2),
        text=LlamaConfig(16, 64, 128, 16, 4),
        image_token_id=15,
        remat="full",
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: config.make(rngs=nnx.Rngs(0))))
    batch = {name: np.ones((1, 8), np.int32) for name in ("input_ids", "attention_mask", "labels")}
    sums = FisherSums(params, jax.ShapeDtypeStruct((), jnp.float32))
    step = accumulator(graphdef, fisher="batch").lower(sums, params, batch).compile()
    size = sum(4 * p.size for p in jax.tree.leaves(params))
    assert step.memory_analysis().temp_size_in_bytes < size / 4


@pytest.mark.parametrize("kind", ["examples", "batch"])
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 1, 1)])
def test_sharded_squares_are_those_of_one_device(make_model, batch, sizes, kind):
    _, wanted = in_one_pass(*nnx.split(make_model()), batch, kind)
    mesh = make_mesh(sizes, jax.devices()[: np.prod(sizes)])
    graphdef, params = nnx.split(make_model(mesh=mesh))
    params = jax.device_put(params, param_shardings(params, mesh))
    _, got = in_one_pass(graphdef, params, put_batch(batch, mesh), kind)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "wanted"), [("examples", 3e-8), ("batch", 9e-8)])
def test_tiny_gradients_do_not_underflow(kind, wanted):
    """D-05: float16 squares of gradients below 1e-4 vanish."""
    graphdef, params = nnx.split(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda p: p.astype(jnp.float16), params)
    slots = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)

    def loss(slots):
        unit = nnx.merge(graphdef, squares.probe(params, slots, kind=kind))
        return jnp.sum(squares.run(unit, jnp.full((3, 2), 1e-4, jnp.float16)))

    np.testing.assert_allclose(jax.grad(loss)(slots)["kernel"][...], wanted, rtol=1e-2)


class Unit(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

    def __call__(self, x, extra):
        gain, steps, keep = extra
        return jnp.where(keep, jnp.sin(self.linear(x)) * gain + steps, 0)


def test_activations_get_ordinary_cotangents_and_values_none():
    x, gain = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    steps, keep = np.arange(12).reshape(4, 3), np.arange(12).reshape(4, 3) % 5 > 0
    graphdef, params = nnx.split(Unit())

    def loss(params, x, gain):
        return jnp.sum(squares.run(nnx.merge(graphdef, params), x, (gain, steps, keep)) ** 2)

    probed = squares.probe(params, jax.tree.map(jnp.zeros_like, params))
    for by in (1, 2):
        wanted = jax.grad(loss, by)(params, x, gain)
        np.testing.assert_allclose(jax.grad(loss, by)(probed, x, gain), wanted, rtol=1e-6)
    leaves = jax.tree.leaves(jax.grad(loss)(probed, x, gain), is_leaf=squares.is_probed)
    for leaf in leaves:
        assert jnp.all(leaf.value == 0)
        assert jnp.any(leaf.sums > 0)


def test_pictures_in_batch_order_are_refused(make_model, batch):
    graphdef, params = nnx.split(make_model())
    pixels = batch["pixel_values"][[0, 0, 1], [0, 1, 0]]
    with pytest.raises(InputError, match="group_pictures"):
        in_one_pass(graphdef, params, batch | {"pixel_values": pixels})


@pytest.mark.parametrize("kind", ["examples", "batch"])
def test_sums_go_on_from_batch_to_batch(make_model, batch, kind):
    """Text alone does not reach the vision tower, whose sums stay."""
    graphdef, params = nnx.split(make_model())
    text = {k: v[2:] for k, v in batch.items() if k != "pixel_values"}

    @functools.partial(jax.jit, static_argnums=0)
    def add(graphdef, sums, batch):
        def loss(sums):
            sums, nothing = squares.keep(sums)
            probed = squares.probe(params, sums, kind=kind)
            return jnp.sum(losses(graphdef, probed, batch)) + nothing

        return jax.grad(loss)(sums)

    sums = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
    _, wanted = in_one_pass(graphdef, params, batch, kind)
    _, more = in_one_pass(graphdef, params, text, kind)
    for one in (batch, text, batch):
        sums = add(graphdef, sums, one)
    wanted = jax.tree.map(lambda a, b: 2 * a + b, wanted, more)
    assert max(jnp.max(leaf) for leaf in jax.tree.leaves(wanted["vision_tower"])) > 0
    for a, b in zip(jax.tree.leaves(sums), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
