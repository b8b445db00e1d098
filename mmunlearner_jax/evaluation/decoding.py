"""Batched greedy decoding with a key/value cache, and likelihoods of continuations.

Axes: B examples, T prompt tokens (left padded), N new tokens, K candidates, S their tokens.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

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

        def prefill(params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, Cache]:
            model = nnx.merge(graphdef, params)
            rows, length = batch["input_ids"].shape
            cache = model.init_cache(rows, length + max_new_tokens)
            logits, cache = model.decode(**batch, cache=cache)
            return logits[:, -1], cache

        def greedy(params: Any, logits: jax.Array, cache: Cache, candidates: jax.Array):
            model = nnx.merge(graphdef, params)

            def step(carry: tuple, _: None):
                logits, cache, done = carry
                log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), candidates, axis=1)
                token = jnp.where(done, end_id, jnp.argmax(logits, axis=-1).astype(jnp.int32))
                done = done | (token == end_id)
                ones = jnp.ones_like(token)[:, None]
                logits, cache = model.decode(token[:, None], ones, cache=cache)
                return (logits[:, -1], cache, done), (token, log_probs)

            done = jnp.zeros(logits.shape[0], bool)
            _, (tokens, log_probs) = jax.lax.scan(
                step, (logits, cache, done), None, length=max_new_tokens
            )
            return tokens.T, jnp.moveaxis(log_probs, 0, 1)

        def score(
            params: Any, logits: jax.Array, cache: Cache, tokens: jax.Array, scored: jax.Array
        ) -> jax.Array:
            model = nnx.merge(graphdef, params)

            def candidate(tokens: jax.Array, scored: jax.Array) -> jax.Array:
                mask = jnp.ones_like(tokens)
                following, _ = model.decode(tokens, mask, cache=cache)
                before = jnp.concatenate([logits[:, None], following[:, :-1]], axis=1)
                log_probs = jnp.take_along_axis(
                    jax.nn.log_softmax(before), tokens[:, :, None], axis=2
                )
                return jnp.sum(log_probs[:, :, 0] * scored, axis=1)

            return jax.lax.map(lambda args: candidate(*args), (tokens, scored))

        self.max_new_tokens = max_new_tokens
        self.end_id = end_id
        self._prefill, self._greedy, self._score = map(jax.jit, (prefill, greedy, score))

    def prefill(self, params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, Cache]:
        """Reads the prompts.

        Args:
            params: of the model.
            batch: `input_ids`, `attention_mask` [B, T] left padded, maybe `pixel_values`.

        Returns:
            Logits of the first new token [B, V] float32, and the cache.
        """
        return self._prefill(params, batch)

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
            Tokens int32 [B, N], and log-probabilities float32 [B, N, K] in nats.
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
            tokens: int [K, B, S] with S <= N, right padded.
            scored: bool [K, B, S], the tokens whose log-probabilities are summed.

        Returns:
            float32 [K, B], nats.
        """
        return self._score(params, logits, cache, tokens, scored)
