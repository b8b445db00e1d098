"""Masks as bits: eight booleans a byte along the last axis."""

from typing import Any

import jax
import jax.numpy as jnp

from mmunlearner_jax.sharding import fitting

Tree = Any


@jax.jit
def pack(mask: Tree) -> Tree:
    """Packs a tree of bool [..., N] into uint8 [..., ceil(N / 8)]."""
    return jax.tree.map(lambda m: jnp.packbits(m, axis=-1), mask)


def packed_shapes(params: Tree) -> Tree:
    """Returns the shapes, dtypes and shardings of a packed mask of parameters, real or abstract."""
    return jax.tree.map(_packed_shape, params)


def unpack(packed: Tree, params: Tree) -> Tree:
    """Unpacks what `pack` made, sharded like the parameters, real or abstract."""
    lengths = jax.tree.map(lambda p: p.shape[-1], params)

    def booleans(bits: jax.Array, length: int) -> jax.Array:
        return jnp.unpackbits(bits, axis=-1, count=length).astype(bool)

    homes = jax.tree.map(lambda p: p.sharding, params)
    return jax.jit(lambda bits: jax.tree.map(booleans, bits, lengths), out_shardings=homes)(packed)


def _packed_shape(param: Any) -> jax.ShapeDtypeStruct:
    shape = (*param.shape[:-1], -(-param.shape[-1] // 8))
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=fitting(param.sharding, shape))
