"""Masks packed by bits: each byte holds eight booleans along one axis.

In files that is the last axis. On devices it is the first one, which is that of stacked layers or
not tiled by a TPU: steps unpack such bits without moving them.

Stacked layers have few bytes along that axis. Their bits are unpacked by operations on elements
alone, which XLA fuses with what uses them: their booleans are never written to memory.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from mmunlearner_jax.sharding import fitting

Tree = Any

FILES, DEVICES = -1, 0  # axes
_FEW = 16  # bytes, of 128 layers; each layer's unpacking reads all of them


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
        if axis == DEVICES and len(bits) <= _FEW:
            return _by_elements(bits, param.shape)
        return jnp.unpackbits(bits, axis=axis, count=param.shape[axis]).astype(bool)

    return jax.tree.map(booleans, packed, params)


def _by_elements(bits: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Unpacks bits along the first axis without a reshape, which XLA would not fuse."""
    place = jax.lax.broadcasted_iota(jnp.uint8, shape, 0)
    byte = jnp.broadcast_to(bits[:1], shape)
    for number in range(1, len(bits)):
        byte = jnp.where(place // 8 == number, bits[number : number + 1], byte)
    return (byte >> (7 - place % 8)) & 1 != 0
