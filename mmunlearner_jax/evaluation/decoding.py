"""Batched greedy decoding with a key/value cache, and likelihoods of continuations.

Axes: B examples, P shared beginnings, T prompt tokens (left padded), N new tokens, K candidates,
S tokens of a candidate.
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

    Parameters are arguments, so models with the same shapes share the compiled programs.
    """

    def __init__(self, graphdef: nnx.GraphDef, *, max_new_tokens: int, end_id: int):
        """Builds the programs.

        Args:
            graphdef: Graph definition of the model.
            max_new_tokens: N, most tokens of an answer.
            end_id: Token that ends an answer; it also fills the positions after the end.
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
        """Runs the model on the prompts, and only once on a beginning that several share.

        Args:
            params: Parameters of the model.
            batch: `input_ids`, `attention_mask` [B, T], left padded, and pictures if there are any:
                whole prompts, or their parts after the shared beginnings.
            shared: The same arrays for P beginnings, e.g. with a picture. P divides B, and B / P
                consecutive prompts share a beginning. None: the prompts are whole.
            room: Most tokens that can follow a prompt; None: N.

        Returns:
            Logits of the first new token, float32 [B, V], and the cache.
        """
        return self._prefill(params, batch, shared, room or self.max_new_tokens)

    def greedy(
        self, params: Any, logits: jax.Array, cache: Cache, candidates: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes greedily from a prefilled cache.

        Args:
            params: Parameters of the model.
            logits: Logits of the first new token, [B, V].
            cache: Cache of `prefill`.
            candidates: Tokens to return log-probabilities of at every position, int [B, K].

        Returns:
            The answers' tokens, int32 [B, N], and the candidates' log-probabilities in nats,
            float32 [B, N, K]; they are 0 at positions after the end of all examples.
        """
        return self._greedy(params, logits, cache, candidates)

    def score(
        self, params: Any, logits: jax.Array, cache: Cache, tokens: ArrayLike, scored: ArrayLike
    ) -> jax.Array:
        """Returns the log-likelihoods of continuations of the prompts.

        Args:
            params: Parameters of the model.
            logits: Logits of the first new token, [B, V].
            cache: Cache of `prefill`.
            tokens: Continuations, int [K, B, S], right padded, with S <= the `room` of `prefill`.
            scored: Whether a token's log-probability is in the sum, bool [K, B, S].

        Returns:
            Sums of log-probabilities in nats, float32 [K, B].
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
