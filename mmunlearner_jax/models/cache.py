"""The cache of a decoder: keys and values of earlier tokens.

Axes: L layers, B examples, K key/value heads, H head size, S slots.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
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


def visible_slots(
    cache: Cache, length: int, window: int | None
) -> tuple[jax.Array, jax.Array | None]:
    """Returns which slots the next T tokens may attend to, as masks of `attention.Store`.

    Args:
        cache: The cache, where `valid` knows the next tokens already, and `used` does not.
        length: Number of next tokens T.
        window: How many tokens a token attends to, itself included; None: all before it.

    Returns:
        Bool [B, T, S] for the cache's own slots, and bool [P, 1 or T * B / P, slots] for those of
        its P prefixes; None: there is no prefix.
    """
    valid, before = cache.valid, cache.before
    now = cache.used + jnp.arange(length)
    own = (jnp.arange(valid.shape[1]) <= now[:, None]) & valid[:, None, :]
    earlier = None if before is None else before.valid[:, None]
    if window is None:
        return own, earlier
    places = jnp.cumsum(valid, axis=1)
    asking = jax.lax.dynamic_slice_in_dim(places, cache.used, length, axis=1)
    own &= asking[:, :, None] - places[:, None] < window
    if before is not None:
        places = jnp.cumsum(before.valid, axis=1)
        asking = places[:, -1:] + asking.reshape(len(places), -1)
        earlier = before.valid[:, None] & (asking[:, :, None] - places[:, None] < window)
    return own, earlier


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
