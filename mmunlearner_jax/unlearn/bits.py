"""Masks packed by bits: in files along the last axis, on devices along the first.

The first axis is that of stacked layers, or is not tiled by a TPU, so that a step unpacks the bits
of a layer where it needs them and no array of booleans exists.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mmunlearner_jax.sharding import fitting

Tree = Any


@jax.jit
def pack(mask: Tree) -> Tree:
    """Packs a mask into bits.

    Args:
        mask: Tree of bool [..., N].

    Returns:
        Tree of uint8 [..., ceil(N / 8)].
    """
    return jax.tree.map(lambda m: jnp.packbits(m, axis=-1), mask)


def packed_shapes(params: Tree) -> Tree:
    """Returns the shapes, dtypes and shardings that the packed mask of a model has.

    Args:
        params: Parameters of the model, arrays or `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(_packed_shape, params)


def unpack(packed: Tree, params: Tree) -> Tree:
    """Unpacks a mask that `pack` made.

    Args:
        packed: Tree of uint8 [..., ceil(N / 8)].
        params: Parameters of the model [..., N], arrays or `jax.ShapeDtypeStruct`.

    Returns:
        Tree of bool [..., N], sharded like the parameters.
    """
    lengths = jax.tree.map(lambda p: p.shape[-1], params)

    def booleans(bits: jax.Array, length: int) -> jax.Array:
        return jnp.unpackbits(bits, axis=-1, count=length).astype(bool)

    shardings = jax.tree.map(lambda p: p.sharding, params)
    unpacked = jax.jit(lambda bits: jax.tree.map(booleans, bits, lengths), out_shardings=shardings)
    return unpacked(packed)


def hold(mask: Tree) -> Tree:
    """Packs a mask for the steps of a run.

    Args:
        mask: Tree of bool [N, ...] with shardings.

    Returns:
        Tree of uint8 [ceil(N / 8), ...], sharded like the mask.
    """
    shardings = jax.tree.map(lambda m: m.sharding, held_shapes(mask))

    def packed(m: jax.Array) -> jax.Array:
        eights = jnp.pad(m, ((0, -len(m) % 8), *((0, 0),) * (m.ndim - 1)))
        eights = eights.reshape(-1, 8, *m.shape[1:]).astype(jnp.uint8)
        return jnp.sum(eights << _shifts(m.ndim), axis=1, dtype=jnp.uint8)

    return jax.jit(lambda mask: jax.tree.map(packed, mask), out_shardings=shardings)(mask)


def held_shapes(params: Tree) -> Tree:
    """Returns the shapes, dtypes and shardings of a mask that `hold` packed.

    Args:
        params: Parameters that the mask is of, arrays or `jax.ShapeDtypeStruct`.
    """

    def shape(param: Any) -> jax.ShapeDtypeStruct:
        packed = (-(-param.shape[0] // 8), *param.shape[1:])
        return jax.ShapeDtypeStruct(packed, jnp.uint8, sharding=fitting(param.sharding, packed))

    return jax.tree.map(shape, params)


def booleans(mask: Tree, params: Tree) -> Tree:
    """Returns the booleans of a mask within a step.

    Args:
        mask: Tree that `hold` packed, or of bool, which is returned.
        params: Parameters that the mask is of.
    """

    def of(m: jax.Array, param: jax.Array) -> jax.Array:
        if m.dtype == jnp.bool_:
            return m
        eights = (m[:, None] >> _shifts(m.ndim)) & 1
        return eights.reshape(-1, *m.shape[1:])[: len(param)].astype(bool)

    return jax.tree.map(of, mask, params)


def _shifts(ndim: int) -> jax.Array:
    return jnp.arange(8, dtype=jnp.uint8).reshape(8, *(1,) * (ndim - 1))


def _packed_shape(param: Any) -> jax.ShapeDtypeStruct:
    shape = (*param.shape[:-1], -(-param.shape[-1] // 8))
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=fitting(param.sharding, shape))
