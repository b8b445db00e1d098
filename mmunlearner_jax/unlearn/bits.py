"""Masks packed by bits: each byte holds eight booleans along one axis.

In files that is the last axis. On devices it is the first one, which is that of stacked layers or
not tiled by a TPU: steps unpack such bits without moving them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

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
    shapes = jax.tree.leaves(packed_shapes(mask, axis))
    return _packed(mask, axis=axis, shardings=tuple(shape.sharding for shape in shapes))


@functools.partial(jax.jit, static_argnames=("axis", "shardings"))
def _packed(mask: Tree, *, axis: int, shardings: tuple[NamedSharding, ...]) -> Tree:
    leaves, structure = jax.tree.flatten(mask)
    packed = [jnp.packbits(leaf, axis=axis) for leaf in leaves]
    return structure.unflatten(jax.lax.with_sharding_constraint(packed, list(shardings)))


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
