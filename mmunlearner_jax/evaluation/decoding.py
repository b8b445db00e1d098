"""Batched greedy decoding with a key/value cache, and likelihoods of continuations.

Axes: B examples, P beginnings that they share, T prompt tokens (left padded), N new tokens,
K candidates, S their tokens.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

Batch = Mapping[str, jax.Array]
Cache = Any


class Decoder:
    """Jitted prefill, greedy loop and continuation scoring for one model definition.

    Parameters are arguments, so models of the same shapes share the compiled programs.
    """

    def __init__(self, graphdef: nnx.GraphDef, *, max_new_tokens: int, end_id: int):
        """Builds the programs.

        Args:
            graphdef: of the model.
            max_new_tokens: N, how many tokens to decode at most.
            end_id: the token that ends an answer; what follows it is filled with it.
        """
        self.max_new_tokens = max_new_tokens
        self.end_id = end_id
        self._prefill = jax.jit(functools.partial(_prefill, graphdef), static_argnums=3)
        greedy = functools.partial(_greedy, graphdef, max_new_tokens, end_id)
        self._greedy, self._score = map(jax.jit, (greedy, functools.partial(_score, graphdef)))

    def prefill(
        self,
        params: Any,
        batch: Batch,
        shared: Batch | None = None,
        *,
        room: int | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Reads the prompts, and what several of them begin with once.

        Args:
            params: of the model.
            batch: `input_ids`, `attention_mask` [B, T] left padded, maybe pictures: the prompts,
                or what follows their beginnings.
            shared: the same of P beginnings, a picture say, where P divides B: B / P prompts in a
                row begin with each. None: the prompts are whole.
            room: tokens that can follow a prompt; None: N.

        Returns:
            Logits of the first new token [B, V] float32, and the cache.
        """
        return self._prefill(params, batch, shared, room or self.max_new_tokens)

    def greedy(
        self, params: Any, logits: jax.Array, cache: Cache, candidates: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes greedily from a prefilled cache.

        Args:
            params: of the model.
            logits: [B, V] of the first new token.
            cache: of `prefill`.
            candidates: int [B, K], tokens whose log-probability is wanted at every position.

        Returns:
            Tokens int32 [B, N], and log-probabilities float32 [B, N, K] in nats; where every
            example has ended before, they are 0.
        """
        return self._greedy(params, logits, cache, candidates)

    def score(
        self, params: Any, logits: jax.Array, cache: Cache, tokens: ArrayLike, scored: ArrayLike
    ) -> jax.Array:
        """Log-likelihood of given continuations of the prompts.

        Args:
            params: of the model.
            logits: [B, V] of the first new token.
            cache: of `prefill`.
            tokens: int [K, B, S] with S <= the `room` of `prefill`, right padded.
            scored: bool [K, B, S], the tokens whose log-probabilities are summed.

        Returns:
            float32 [K, B], nats.
        """
        return self._score(params, logits, cache, tokens, scored)


def _prefill(
    graphdef: nnx.GraphDef, params: Any, batch: Batch, shared: Batch | None, room: int
) -> tuple[jax.Array, Cache]:
    model, before = nnx.merge(graphdef, params), None
    if shared is not None:
        empty = model.init_cache(*shared["input_ids"].shape)
        _, before = model.decode(**shared, cache=empty, last=True)
    count, length = batch["input_ids"].shape
    cache = model.init_cache(count, length + room, before)
    logits, cache = model.decode(**batch, cache=cache, last=True)
    return logits[:, 0], cache


def _greedy(
    graphdef: nnx.GraphDef,
    max_new_tokens: int,
    end_id: int,
    params: Any,
    logits: jax.Array,
    cache: Cache,
    candidates: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graphdef, params)

    def unfinished(carry: tuple) -> jax.Array:
        step, done = carry[0], carry[3]
        return (step < max_new_tokens) & ~jnp.all(done)

    def body(carry: tuple) -> tuple:
        step, logits, cache, done, tokens, seen = carry
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), candidates, axis=1)
        token = jnp.where(done, end_id, jnp.argmax(logits, axis=-1).astype(jnp.int32))
        tokens = tokens.at[:, step].set(token)
        seen = seen.at[:, step].set(log_probs)
        ones = jnp.ones_like(token)[:, None]
        logits, cache = model.decode(token[:, None], ones, cache=cache)
        return step + 1, logits[:, 0], cache, done | (token == end_id), tokens, seen

    rows = logits.shape[0]
    done = jnp.zeros(rows, bool)
    tokens = jnp.full((rows, max_new_tokens), end_id, jnp.int32)
    seen = jnp.zeros((rows, max_new_tokens, candidates.shape[1]), logits.dtype)
    carry = (jnp.zeros((), jnp.int32), logits, cache, done, tokens, seen)
    return jax.lax.while_loop(unfinished, body, carry)[-2:]


def _score(
    graphdef: nnx.GraphDef,
    params: Any,
    logits: jax.Array,
    cache: Cache,
    tokens: jax.Array,
    scored: jax.Array,
) -> jax.Array:
    model = nnx.merge(graphdef, params)

    def candidate(tokens: jax.Array, scored: jax.Array) -> jax.Array:
        mask = jnp.ones_like(tokens)
        following, _ = model.decode(tokens, mask, cache=cache)
        before = jnp.concatenate([logits[:, None], following[:, :-1]], axis=1)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(before), tokens[:, :, None], axis=2)
        return jnp.sum(log_probs[:, :, 0] * scored, axis=1)

    return jax.lax.map(lambda args: candidate(*args), (tokens, scored))
