"""Masks packed by bits: each byte holds eight booleans along the last axis."""

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


def _packed_shape(param: Any) -> jax.ShapeDtypeStruct:
    shape = (*param.shape[:-1], -(-param.shape[-1] // 8))
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=fitting(param.sharding, shape))
