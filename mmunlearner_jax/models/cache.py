"""The cache of a decoder: keys and values of earlier tokens.

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
    """Keys and values of earlier tokens, in S slots of static shape.

    Attributes:
        keys: Rotated keys [L, B, K, H, S].
        values: Values [L, B, K, S, H].
        valid: Whether a slot holds a token, bool [B, S]; False at padding and in unused slots.
        position: Rotary position of the next token, int32 [B].
        used: Number of used slots, an int32 scalar.
        before: A cache of P prefixes, which is only read; B / P consecutive examples continue each
            prefix. None: there is no prefix.
    """

    keys: jax.Array
    values: jax.Array
    valid: jax.Array
    position: jax.Array
    used: jax.Array
    before: "Cache | None" = None


def cache_shardings(cache: Cache, mesh: Mesh) -> Cache:
    """Returns the shardings of a cache: examples as in a batch, heads as in the projections."""
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
