"""Masks packed by bits: each byte holds eight booleans along one axis.

In files that is the last axis. On devices it is the first one, which is that of stacked layers or
not tiled by a TPU: steps unpack such bits without moving them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mmunlearner_jax.sharding import fitting

Tree = Any

FILES, DEVICES = -1, 0  # axes


def pack(mask: Tree, axis: int) -> Tree:
    """Packs a mask into bits.

    Args:
        mask: Tree of bool with shardings.
        axis: Axis along which booleans share a byte.

    Returns:
        Tree of uint8, with an eighth of the length along the axis (rounded up), sharded like the
        mask where the lengths allow it.
    """
    shardings = jax.tree.map(lambda shape: shape.sharding, packed_shapes(mask, axis))

    def packed(mask: Tree) -> Tree:
        return jax.tree.map(lambda m: jnp.packbits(m, axis=axis), mask)

    return jax.jit(packed, out_shardings=shardings)(mask)


def packed_shapes(params: Tree, axis: int) -> Tree:
    """Returns the shapes, dtypes and shardings that the packed mask of a model has.

    Args:
        params: Parameters that the mask is of, arrays or `jax.ShapeDtypeStruct`.
        axis: Axis along which booleans share a byte.
    """

    def packed(param: Any) -> jax.ShapeDtypeStruct:
        shape = list(param.shape)
        shape[axis] = -(-shape[axis] // 8)
        return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=fitting(param.sharding, shape))

    return jax.tree.map(packed, params)


def unpack(packed: Tree, params: Tree, axis: int) -> Tree:
    """Unpacks a mask that `pack` made.

    Args:
        packed: Tree of uint8. Trees of bool are returned as they are.
        params: Parameters that the mask is of: arrays, traced or not, or `jax.ShapeDtypeStruct`.
        axis: Axis along which booleans share a byte.

    Returns:
        Tree of bool with the shapes of the parameters.
    """

    def booleans(bits: jax.Array, param: Any) -> jax.Array:
        if bits.dtype == jnp.bool_:
            return bits
        return jnp.unpackbits(bits, axis=axis, count=param.shape[axis]).astype(bool)

    return jax.tree.map(booleans, packed, params)
