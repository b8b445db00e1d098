"""The cache of a decoder: keys and values of the tokens that it has seen.

Axes: L layers, B examples, K key/value heads, H head size, S slots.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmunlearner_jax.sharding import RULES, batch_sharding, fitting, replicated


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far; static shapes, S slots.

    Attributes:
        keys: [L, B, K, H, S], rotated.
        values: [L, B, K, S, H].
        valid: Bool [B, S], False for padding and for slots not yet filled.
        position: Int32 [B], the rotary position of the next token.
        used: Int32 scalar, the slots filled.
        before: Of P beginnings, which is only read: B / P examples in a row begin with each. None:
            nothing stands before these tokens.
    """

    keys: jax.Array
    values: jax.Array
    valid: jax.Array
    position: jax.Array
    used: jax.Array
    before: "Cache | None" = None


def cache_shardings(cache: Cache, mesh: Mesh) -> Cache:
    """Shardings of a cache: examples like a batch, heads like the projections that make them."""
    rows = batch_sharding(mesh)
    stores = NamedSharding(mesh, PartitionSpec(None, *rows.spec, RULES["kv_heads"], None, None))

    def fit(sharding: NamedSharding, x: jax.Array) -> Any:
        return fitting(sharding, x.shape)

    return Cache(
        keys=fit(stores, cache.keys),
        values=fit(stores, cache.values),
        valid=fit(rows, cache.valid),
        position=fit(rows, cache.position),
        used=fit(replicated(mesh), cache.used),
        before=None if cache.before is None else cache_shardings(cache.before, mesh),
    )
