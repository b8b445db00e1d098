"""Attention: with any mask, with a cache, or causal over whole sequences with a chosen kernel.

Axes: B examples, T query tokens, S key tokens, N query heads, K key/value heads, H head size, P
stores (each serves B / P consecutive examples), Q queries of one store and one key/value head.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import visible
from mmunlearner_jax.sharding import RULES, batch_sharding, fitting

_TILE = 128  # `splash` pads sequences to a multiple of this
_LARGEST_TILE = 512
_BLOCK = 128  # queries that `blocks` takes together


def masked(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Computes scaled dot-product attention with grouped queries and a float32 softmax.

    Args:
        q: Queries [B, T, N, H].
        k: Keys [B, S, K, H], where K divides N.
        v: Values [B, S, K, H].
        mask: Whether a query may attend to a key, bool [B, T, S]; None: always.

    Returns:
        The attended values [B, T, N * H], in the dtype of q.
    """
    batch, _, kv_heads, _ = k.shape
    keys, values = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    value = _attend(_by_head(q, batch, kv_heads), keys, values, mask)
    return _from_heads(value, q).astype(q.dtype).reshape(*q.shape[:2], -1)


@jax.custom_vjp
def _attend(q: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the attended values [P, K, Q, H] of queries [P, K, Q, H].

    Keys, values and mask are those of a `Store`; the mask may be None. All products here and in the
    gradient contract the last axis of one array with the last but one of the other. On a CPU, XLA
    copies the arrays before any other product, which costs more than the product itself. The
    gradient computes the attention weights again instead of keeping them (as Dao 2023,
    FlashAttention-2, does).
    """
    return _attend_forward(q, keys, values, mask)[0]


def _attend_forward(q, keys, values, mask):
    value, total, peak = _sums(q, keys, values, mask)
    out = value / total
    return out, (q, keys, values, mask, out, peak + jnp.log(total))


def _attend_backward(residuals, gradient):
    q, keys, values, mask, out, normaliser = residuals
    weights = jnp.exp(_scores(q, keys, mask) - normaliser)
    multiply = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    # The mean of the weights' gradient, without a pass over the weights.
    mean = jnp.sum(gradient * out, axis=-1, keepdims=True)
    gradient = gradient.astype(values.dtype)
    of_scores = weights * (multiply(gradient, values.mT) - mean)
    of_scores = (of_scores * q.shape[-1] ** -0.5).astype(q.dtype)
    return (
        multiply(of_scores, keys.mT).astype(q.dtype),
        multiply(q.mT, of_scores).astype(keys.dtype),
        multiply(gradient.mT, weights.astype(values.dtype)).mT.astype(values.dtype),
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


def _by_head(q: jax.Array, rows: int, kv_heads: int) -> jax.Array:
    """Maps queries [B, T, N, H] to [P, K, Q, H], where Q = N / K * B / P * T; `rows` is P."""
    _, _, heads, size = q.shape
    grouped = q.reshape(rows, -1, kv_heads, heads // kv_heads, size)
    return grouped.transpose(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, size)


def _from_heads(x: jax.Array, q: jax.Array) -> jax.Array:
    """Maps x [P, K, Q, X] back to [B, T, N, X], where q [B, T, N, H] was `_by_head`'s input."""
    rows, kv_heads, _, size = x.shape
    batch, length, heads, _ = q.shape
    apart = x.reshape(rows, kv_heads, heads // kv_heads, -1, size)
    return apart.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def _scores(q: jax.Array, keys: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns float32 scores [P, K, Q, S] of `_by_head`'s queries with a `Store`'s keys."""
    scores = jnp.matmul(q, keys, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is None:
        return scores
    rows, kv_heads, _, slots = scores.shape
    apart = scores.reshape(rows, kv_heads, -1, *mask.shape[1:])
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(mask[:, None, None], apart, lowest).reshape(rows, kv_heads, -1, slots)


class Store(NamedTuple):
    """P stores of the keys and values of earlier tokens, in the layout of the products.

    Attributes:
        keys: Keys [P, K, H, S].
        values: Values [P, K, S, H].
        mask: Whether a query may attend to a slot, bool [P, T * B / P, S], where the queries of the
            store's examples follow each other; or [P, 1, S], the same for all of them.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


def stored(q: jax.Array, *stores: Store) -> jax.Array:
    """Computes attention to several stores as if they were one, with a float32 softmax.

    Examples that share a store are multiplied with it together, so that it is read once for all.

    Args:
        q: Queries [B, T, N, H].
        *stores: Stores whose P divides B; B / P consecutive examples share each.

    Returns:
        The attended values [B, T, N * H], in the dtype of q.
    """
    values, totals, peaks = zip(*(_unnormalised(q, store) for store in stores), strict=True)
    peak = functools.reduce(jnp.maximum, peaks)
    scales = [jnp.exp(own - peak) for own in peaks]
    total, value = (
        functools.reduce(jnp.add, map(jnp.multiply, scales, parts)) for parts in (totals, values)
    )
    return (value / total).astype(q.dtype).reshape(*q.shape[:2], -1)


def _unnormalised(q: jax.Array, store: Store) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns weighted values [B, T, N, H], and [B, T, N, 1] sum of weights and largest score."""
    parts = _sums(_by_head(q, *store.keys.shape[:2]), *store)
    value, total, peak = (_from_heads(part, q) for part in parts)
    return value, total, peak


def _sums(
    q: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the parts of a softmax over the keys, for queries [P, K, Q, H], in float32.

    Returns:
        The sum of the values by their weights [P, K, Q, H]; the sum of the weights and the largest
        score [P, K, Q, 1]. A weight is the exponential of a score less the largest one.
    """
    scores = _scores(q, keys, mask)
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    value = jnp.matmul(weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return value, jnp.sum(weights, axis=-1, keepdims=True), peak


def causal(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    valid: jax.Array,
    segments: jax.Array | None = None,
    *,
    kernel: str,
    mesh: Mesh | None,
    window: int | None = None,
) -> jax.Array:
    """Computes causal attention; every token attends to those that `packing.visible` allows.

    Args:
        q: Queries [B, T, N, H].
        k: Keys [B, T, K, H], where K divides N.
        v: Values [B, T, K, H].
        valid: Whether a token is no padding, bool [B, T]; results at padding are arbitrary.
        segments: Segments of packed rows (see `packing`), int [B, T]; None: every row is one
            sequence.
        kernel: A key of `KERNELS`.
        mesh: Devices that `splash` is split over, because XLA cannot split a kernel itself; None:
            one device.
        window: How many tokens a token attends to, itself included; None: all before it.

    Returns:
        The attended values [B, T, N * H], in the dtype of q.
    """
    return KERNELS[kernel](q, k, v, valid, segments, window, mesh)


def after(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    valid: jax.Array,
    before: tuple[jax.Array, jax.Array, jax.Array],
    window: int | None = None,
) -> jax.Array:
    """Computes the causal attention of tokens that follow a prefix.

    Args:
        q: Queries [B, T, N, H].
        k: Keys [B, T, K, H].
        v: Values [B, T, K, H].
        valid: Whether a token is no padding, bool [B, T].
        before: Keys and values [B, P, K, H] of the prefix's tokens, and whether each is no padding,
            bool [B, P].
        window: As in `causal`.

    Returns:
        The attended values [B, T, N * H], in the dtype of q.
    """
    keys, values, seen = before
    mask = visible(jnp.concatenate([seen, valid], axis=1), None, window)[:, seen.shape[1] :]
    k, v = jnp.concatenate([keys, k], axis=1), jnp.concatenate([values, v], axis=1)
    return masked(q, k, v, mask)


def _xla(q, k, v, valid, segments, window, mesh):
    return masked(q, k, v, visible(valid, segments, window))


def _blocks(q, k, v, valid, segments, window, mesh):
    length, seen = valid.shape[1], visible(valid, segments, window)
    ends = itertools.pairwise([*range(0, length, _BLOCK), length])
    # No query of a block may attend to a key behind the block, so the products end there.
    return jnp.concatenate(
        [masked(q[:, a:b], k[:, :b], v[:, :b], seen[:, a:b, :b]) for a, b in ends], axis=1
    )


def _cudnn(q, k, v, valid, segments, window, mesh):
    batch, length = valid.shape
    # cuDNN's own padding masks allow padding on the right only. Under vmap, cuDNN takes no mask
    # that all heads share.
    plain = segments is None and window is None
    seen = valid[:, None, :] if plain else visible(valid, segments, window)
    mask = jnp.broadcast_to(seen[:, None], (batch, q.shape[2], length, length))
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, implementation="cudnn")
    return out.reshape(batch, length, -1)


def _splash(q, k, v, valid, segments, window, mesh):
    run = functools.partial(_splash_local, window=window)
    if mesh is None:
        return run(q, k, v, valid, segments)
    # `fitting` drops axes that do not divide: under `squares`, there is one example here.
    target = PartitionSpec(*batch_sharding(mesh).spec, None, RULES["kv_heads"])
    rows, _, tensor, _ = heads = fitting(NamedSharding(mesh, target), k.shape).spec
    tokens = PartitionSpec(rows, None)
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(heads, heads, heads, tokens, tokens),
        out_specs=PartitionSpec(rows, None, tensor),
        check_vma=False,
    )(q, k, v, valid, segments)


def _splash_local(q, k, v, valid, segments, *, window):
    batch, length, heads, size = q.shape
    padded = -(-length // _TILE) * _TILE
    tile = max(t for t in range(_TILE, _LARGEST_TILE + 1, _TILE) if padded % t == 0)
    blocks = splash_attention.BlockSizes(
        block_q=tile,
        block_kv=tile,
        block_q_dkv=tile,
        block_kv_dkv=tile,
        block_q_dq=tile,
        block_kv_dq=tile,
    )
    make = functools.partial(
        splash_attention.make_splash_mha, block_sizes=blocks, head_shards=1, q_seq_shards=1
    )

    def prepare(x):
        x = jnp.moveaxis(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, padded - length), (0, 0)))

    def pad(x):
        return jnp.pad(x, ((0, 0), (0, padded - length)))

    arrays = (prepare(q * size**-0.5), prepare(k), prepare(v), pad(valid.astype(jnp.int32)))
    if segments is not None:
        arrays += (pad(segments),)

    def run(interpret, q, k, v, valid, segments=None):
        # Padding attends to padding only, so that no row of scores is empty.
        ids = splash_attention.SegmentIds(valid, valid)
        if segments is None:
            shape = padded, padded
            mask = splash_attention.CausalMask(shape)
            if window is not None:
                mask = splash_attention.LocalMask(shape, (window - 1, 0), 0)
            kernel: Any = make(splash_attention.MultiHeadMask([mask] * heads), interpret=interpret)
            return jax.vmap(kernel)(q, k, v, ids)

        def example(q, k, v, seen, ids):
            # The mask is an array, so its values are known only when the kernel runs.
            kernel: Any = make(jnp.broadcast_to(seen, (heads, *seen.shape)), interpret=interpret)
            # Under `jit`, `make` also turns this flag into an array, which Python cannot test.
            kernel.fwd_mask_info = kernel.fwd_mask_info._replace(is_dynamic_mask=True)
            return kernel(q, k, v, ids)

        seen = visible(valid > 0, segments, window) | jnp.eye(padded, dtype=bool)
        return jax.vmap(example)(q, k, v, seen, ids)

    out = jax.lax.platform_dependent(
        *arrays, cpu=functools.partial(run, True), default=functools.partial(run, False)
    )
    return jnp.moveaxis(out[:, :, :length], 1, 2).reshape(batch, length, heads * size)


KERNELS: dict[str, Any] = {"xla": _xla, "blocks": _blocks, "splash": _splash, "cudnn": _cudnn}

# Platforms of the kernels. On a CPU `splash` is interpreted, which takes minutes: for tests only.
_PLATFORMS = {"splash": ("tpu", "cpu"), "cudnn": ("gpu", "cuda")}


def check_kernel(kernel: str, platform: str) -> None:
    """Refuses a kernel that does not run on a platform.

    Raises:
        InputError: The kernel does not run on it; the message names those that do.
    """
    if platform not in _PLATFORMS.get(kernel, (platform,)):
        fits = [name for name in KERNELS if platform in _PLATFORMS.get(name, (platform,))]
        raise InputError(
            f"config.model.attention={kernel!r} does not run on {platform}: use {' or '.join(fits)}"
        )
