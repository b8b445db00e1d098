"""Attention: with any mask, or causal over whole sequences by a kernel that the config names.

Axes: B examples, T query tokens, S key tokens, N query heads, K key/value heads, H head size.
"""

import functools
from typing import Any

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
        mask: bool [B, T, S], True where the query may see the key; None: everywhere.

    Returns:
        [B, T, N * H] in the dtype of q.
    """
    batch, length, heads, size = q.shape
    grouped = q.reshape(batch, length, k.shape[2], -1, size)
    # On CPU the backward pass of `jax.nn.dot_product_attention` takes twice as long.
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32)
    scores = scores * size**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(batch, length, heads * size)


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
        valid: bool [B, T], False for padding; results in its places mean nothing.
        segments: int [B, T] of packed rows (see `packing`); None: every row is one sequence.
        kernel: a name of `KERNELS`.
        mesh: what `splash` is cut up over (XLA cannot cut a kernel itself); None: one device.

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
        InputError: naming those that do.
    """
    if platform not in _PLATFORMS.get(kernel, (platform,)):
        fits = [name for name in KERNELS if platform in _PLATFORMS.get(name, (platform,))]
        raise InputError(
            f"config.model.attention={kernel!r} does not run on {platform}: use {' or '.join(fits)}"
        )
