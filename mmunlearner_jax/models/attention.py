"""Attention: with any mask, or causal over whole sequences by a kernel that the config names.

Axes: B examples, T query tokens, S key tokens, N query heads, K key/value heads, H head size, P
stores, Q queries of a store's examples.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import visible
from mmunlearner_jax.sharding import RULES, batch_sharding, fitting

_TILE = 128  # splash: sequences are padded to a multiple of it
_LARGEST_TILE = 512


def masked(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Scaled dot-product attention with grouped queries; its softmax is float32.

    Args:
        q: [B, T, N, H].
        k: [B, S, K, H], where K divides N.
        v: [B, S, K, H].
        mask: Bool [B, T, S], True where the query may see the key; None: everywhere.

    Returns:
        [B, T, N * H] in the dtype of q.
    """
    batch, _, kv_heads, _ = k.shape
    keys, values = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    value = _attend(_by_head(q, batch, kv_heads), keys, values, mask)
    return _from_heads(value, q).astype(q.dtype).reshape(*q.shape[:2], -1)


@jax.custom_vjp
def _attend(q: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """[P, K, Q, H] of queries like that; the rest as in `Store`, or no mask.

    All products here and in the gradient multiply the last axis of one array with the last but one
    of the other: anything else XLA copies first on a CPU, which costs more than the product. The
    gradient makes the weights again rather than keep them.
    """
    return jnp.matmul(
        jax.nn.softmax(_scores(q, keys, mask)).astype(values.dtype),
        values,
        preferred_element_type=jnp.float32,
    )


def _attend_forward(q, keys, values, mask):
    return _attend(q, keys, values, mask), (q, keys, values, mask)


def _attend_backward(given, gradient):
    q, keys, values, mask = given
    weights = jax.nn.softmax(_scores(q, keys, mask))
    multiply = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    gradient = gradient.astype(values.dtype)
    of_weights = multiply(gradient, values.mT)
    of_scores = weights * (of_weights - jnp.sum(of_weights * weights, axis=-1, keepdims=True))
    of_scores = (of_scores * q.shape[-1] ** -0.5).astype(q.dtype)
    return (
        multiply(of_scores, keys.mT).astype(q.dtype),
        multiply(q.mT, of_scores).astype(keys.dtype),
        multiply(gradient.mT, weights.astype(values.dtype)).mT.astype(values.dtype),
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


def _by_head(q: jax.Array, rows: int, kv_heads: int) -> jax.Array:
    """Queries [B, T, N, H] to [P, K, N / K * B / P * T, H]."""
    _, _, heads, size = q.shape
    grouped = q.reshape(rows, -1, kv_heads, heads // kv_heads, size)
    return grouped.transpose(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, size)


def _from_heads(x: jax.Array, q: jax.Array) -> jax.Array:
    """Back from what `_by_head` made of q: x [P, K, N / K * B / P * T, X] to [B, T, N, X]."""
    rows, kv_heads, _, size = x.shape
    batch, length, heads, _ = q.shape
    apart = x.reshape(rows, kv_heads, heads // kv_heads, -1, size)
    return apart.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def _scores(q: jax.Array, keys: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Float32 [P, K, Q, S] of what `_by_head` gives and of a `Store`, or no mask."""
    scores = jnp.matmul(q, keys, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is None:
        return scores
    rows, kv_heads, _, slots = scores.shape
    apart = scores.reshape(rows, kv_heads, -1, *mask.shape[1:])
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(mask[:, None, None], apart, lowest).reshape(rows, kv_heads, -1, slots)


class Store(NamedTuple):
    """Keys and values of earlier tokens, ready to be multiplied; P stores of as many examples each.

    Attributes:
        keys: [P, K, H, S].
        values: [P, K, S, H].
        mask: Bool [P, Q, S], True where a query may see the slot; Q is T for each of the store's
            examples in turn, or 1: all of them see the same.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


def stored(q: jax.Array, *stores: Store) -> jax.Array:
    """Attention to what is kept in several stores, as if they were one; its softmax is float32.

    Examples that share a store are multiplied with it together: it is read once for all of them.

    Args:
        q: [B, T, N, H].
        *stores: Each of P examples, where P divides B: B / P examples in a row see one of them.

    Returns:
        [B, T, N * H] in the dtype of q.
    """
    values, totals, peaks = zip(*(_unnormalised(q, store) for store in stores), strict=True)
    peak = functools.reduce(jnp.maximum, peaks)
    scales = [jnp.exp(own - peak) for own in peaks]
    total, value = (
        functools.reduce(jnp.add, map(jnp.multiply, scales, parts)) for parts in (totals, values)
    )
    return (value / total).astype(q.dtype).reshape(*q.shape[:2], -1)


def _unnormalised(q: jax.Array, store: Store) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values [B, T, N, H], the sum of their weights and the largest score, [B, T, N, 1]."""
    keys, values, mask = store
    scores = _scores(_by_head(q, *keys.shape[:2]), keys, mask)
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    value = jnp.matmul(weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return _from_heads(value, q), _from_heads(total, q), _from_heads(peak, q)


def causal(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    valid: jax.Array,
    segments: jax.Array | None = None,
    *,
    kernel: str,
    mesh: Mesh | None,
) -> jax.Array:
    """Attention of every token to those that `packing.visible` says.

    Args:
        q: [B, T, N, H].
        k: [B, T, K, H], where K divides N.
        v: [B, T, K, H].
        valid: Bool [B, T], False for padding; results in its places mean nothing.
        segments: Int [B, T] of packed rows (see `packing`); None: every row is one sequence.
        kernel: A name of `KERNELS`.
        mesh: What `splash` is cut up over (XLA cannot cut a kernel itself); None: one device.

    Returns:
        [B, T, N * H] in the dtype of q.
    """
    return KERNELS[kernel](q, k, v, valid, segments, mesh)


def _xla(q, k, v, valid, segments, mesh):
    return masked(q, k, v, visible(valid, segments))


def _cudnn(q, k, v, valid, segments, mesh):
    batch, length = valid.shape
    # cuDNN's own padding masks know padding on the right only; under vmap it takes no mask that is
    # one for all heads.
    seen = valid[:, None, :] if segments is None else visible(valid, segments)
    mask = jnp.broadcast_to(seen[:, None], (batch, q.shape[2], length, length))
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, implementation="cudnn")
    return out.reshape(batch, length, -1)


def _splash(q, k, v, valid, segments, mesh):
    if mesh is None:
        return _splash_local(q, k, v, valid, segments)
    # `squares` shows one example of several, which does not divide.
    target = PartitionSpec(*batch_sharding(mesh).spec, None, RULES["kv_heads"])
    rows, _, tensor, _ = heads = fitting(NamedSharding(mesh, target), k.shape).spec
    tokens = PartitionSpec(rows, None)
    return jax.shard_map(
        _splash_local,
        mesh=mesh,
        in_specs=(heads, heads, heads, tokens, tokens),
        out_specs=PartitionSpec(rows, None, tensor),
        check_vma=False,
    )(q, k, v, valid, segments)


def _splash_local(q, k, v, valid, segments):
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
        # Padding sees padding alone, so that no row of scores is empty.
        ids = splash_attention.SegmentIds(valid, valid)
        if segments is None:
            mask = splash_attention.MultiHeadMask(
                [splash_attention.CausalMask((padded, padded))] * heads
            )
            kernel: Any = make(mask, interpret=interpret)
            return jax.vmap(kernel)(q, k, v, ids)

        def example(q, k, v, seen, ids):
            # One made of an array: what it lets through is known only when it runs.
            kernel: Any = make(jnp.broadcast_to(seen, (heads, *seen.shape)), interpret=interpret)
            # Making it under `jit` turns this flag, too, into an array, which nothing can ask.
            kernel.fwd_mask_info = kernel.fwd_mask_info._replace(is_dynamic_mask=True)
            return kernel(q, k, v, ids)

        seen = visible(jnp.ones_like(valid, bool), segments)
        return jax.vmap(example)(q, k, v, seen, ids)

    out = jax.lax.platform_dependent(
        *arrays, cpu=functools.partial(run, True), default=functools.partial(run, False)
    )
    return jnp.moveaxis(out[:, :, :length], 1, 2).reshape(batch, length, heads * size)


KERNELS: dict[str, Any] = {"xla": _xla, "splash": _splash, "cudnn": _cudnn}

# Where a kernel runs; `splash` is interpreted on a CPU, which is for tests: it takes minutes.
_PLATFORMS = {"splash": ("tpu", "cpu"), "cudnn": ("gpu", "cuda")}


def check_kernel(kernel: str, platform: str) -> None:
    """Refuses a kernel that does not run on a platform.

    Raises:
        InputError: Naming those that do.
    """
    if platform not in _PLATFORMS.get(kernel, (platform,)):
        fits = [name for name in KERNELS if platform in _PLATFORMS.get(name, (platform,))]
        raise InputError(
            f"config.model.attention={kernel!r} does not run on {platform}: use {' or '.join(fits)}"
        )
