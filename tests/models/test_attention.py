"""Kernels against plain attention; `splash` runs in Pallas' interpreter here, `cudnn` in XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import squares
from mmunlearner_jax.models.attention import causal, check_kernel, masked
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch


@pytest.fixture
def arrays():
    """Queries, keys, values of 4 heads over 2, and padding on the left, the right, nowhere."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(4, 150, n, 16)).astype("float32") for n in (4, 2, 2))
    valid = np.ones((4, 150), bool)
    valid[1, :40] = valid[2, 100:] = False
    return q, k, v, valid


@pytest.fixture(params=["one sequence", "packed"])
def segments(request):
    """None, or a prefix of 50 tokens and segments of 30."""
    if request.param == "one sequence":
        return None
    return np.broadcast_to(np.maximum(np.arange(150) - 20, 0) // 30, (4, 150)).astype("int32")


def attended(kernel, mesh, q, k, v, valid, segments=None, window=None):
    """The result where it means something, and its gradients."""

    @jax.jit
    def run(q, k, v):
        out = causal(q, k, v, valid, segments, kernel=kernel, mesh=mesh, window=window)
        return jnp.where(valid[:, :, None], out, 0)

    out, back = jax.vjp(run, q, k, v)
    return out, back(jnp.cos(out))


def assert_close(got, wanted):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 45])
def test_causal_attention_is_the_masked_one(arrays, segments, window):
    q, k, v, valid = arrays
    mask = np.tril(np.ones((150, 150), bool)) & valid[:, None]
    if segments is not None:
        other = segments[:, None]
        mask = mask & ((other == 0) | (other == segments[:, :, None]))
    if window is not None:  # of the tokens that it sees, the last ones
        mask = mask & (np.cumsum(mask[:, :, ::-1], axis=2)[:, :, ::-1] <= window)
    np.testing.assert_array_equal(
        causal(q, k, v, valid, segments, kernel="xla", mesh=None, window=window)[valid],
        masked(q, k, v, mask)[valid],
    )


@pytest.mark.parametrize("window", [None, 45])
def test_blocks(arrays, segments, window):
    """150 tokens are more than a block."""
    wanted = attended("xla", None, *arrays, segments, window)
    assert_close(attended("blocks", None, *arrays, segments, window), wanted)


@pytest.mark.parametrize("sizes", [None, (2, 1, 2), (1, 2, 1)])
def test_splash(arrays, sizes, segments):
    mesh = sizes and make_mesh(sizes, jax.devices()[: np.prod(sizes)])
    wanted = attended("xla", None, *arrays, segments)
    assert_close(attended("splash", mesh, *arrays, segments), wanted)


def test_splash_with_a_window(arrays, segments):
    wanted = attended("xla", None, *arrays, segments, 45)
    assert_close(attended("splash", None, *arrays, segments, 45), wanted)


@pytest.mark.parametrize("window", [None, 45])
def test_cudnn_is_given_the_same_mask(arrays, segments, window, monkeypatch):
    plain = jax.nn.dot_product_attention

    def instead(*args, implementation, **kwargs):
        assert implementation == "cudnn"
        return plain(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    wanted = attended("xla", None, *arrays, segments, window)
    assert_close(attended("cudnn", None, *arrays, segments, window), wanted)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="TEST_PLATFORMS=cuda, and a GPU")
@pytest.mark.parametrize("length", [150, 128])
def test_cudnn_on_a_gpu(arrays, length):
    q, k, v, valid = (x[:, :length] for x in arrays)
    wanted = attended("xla", None, q, k, v, valid)
    half = (x.astype(jnp.bfloat16) for x in (q, k, v))
    got = attended("cudnn", None, *half, valid)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.float32(a), b, atol=0.03 * np.abs(b).max())


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="TEST_PLATFORMS=cuda, and a GPU")
def test_cudnn_on_a_gpu_by_example(arrays):
    """As `squares` calls it: one example at a time, under vmap."""

    def gradient(kernel, dtype):
        def one(q, k, v, valid):
            def total(q):
                out = causal(q, k, v, valid, kernel=kernel, mesh=None)
                return jnp.sum(jnp.where(valid[:, :, None], out, 0).astype(jnp.float32))

            return jax.grad(total)(q)

        q, k, v = (jnp.asarray(x[:, None], dtype) for x in arrays[:3])
        return np.float32(jax.jit(jax.vmap(one))(q, k, v, arrays[3][:, None]))

    wanted = gradient("xla", jnp.float32)
    got = gradient("cudnn", jnp.bfloat16)
    np.testing.assert_allclose(got, wanted, atol=0.03 * np.abs(wanted).max())


def test_squares_of_a_sharded_model(make_model, batch):
    """The kernel sees one example at a time, and the examples stay where they are."""

    def sums(graphdef, params, batch):
        def loss(slots):
            logits = nnx.merge(graphdef, squares.probe(params, slots))(**batch)
            return jnp.sum(jax.nn.log_softmax(logits)[..., 3] * batch["attention_mask"])

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.jit(jax.grad(loss))(zeros)

    wanted = sums(*nnx.split(make_model()), batch)
    mesh = make_mesh((2, 1, 2), jax.devices()[:4])
    graphdef, params = nnx.split(make_model(mesh=mesh, attention="splash"))
    params = jax.device_put(params, param_shardings(params, mesh))
    got = sums(graphdef, params, put_batch(batch, mesh))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kernel", "platform"), [("splash", "gpu"), ("cudnn", "tpu")])
def test_a_kernel_of_another_platform(kernel, platform):
    with pytest.raises(InputError, match=f"attention='{kernel}' does not run on {platform}: use"):
        check_kernel(kernel, platform)
    check_kernel(kernel, {"tpu": "gpu", "gpu": "tpu"}[platform])
