"""Losses on answers: pure functions of logits and labels.

Axes: B examples, T tokens, V vocabulary. Labels follow transformers: -100 is not supervised,
and the logits at position t predict the label at t + 1.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

IGNORE = -100

Params = Any
Batch = Mapping[str, Any]


def answer_logits(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> jax.Array:
    """Logits [B, T, V] of a batch: everything in it but `labels` goes into the model."""
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return nnx.merge(graphdef, params)(**inputs)


def answer_nll(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of every example's supervised tokens.

    Args:
        logits: [B, T, V].
        labels: int [B, T], -100 where not supervised.

    Returns:
        Sum over the supervised tokens [B] float32 (nats), and their number [B] int32.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE
    nll = optax.softmax_cross_entropy_with_integer_labels(
        logits[:, :-1].astype(jnp.float32), jnp.where(supervised, targets, 0)
    )
    return jnp.sum(nll * supervised, axis=1), jnp.sum(supervised, axis=1)


def exact_answers(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether greedy decoding would give every supervised token of an example.

    Teacher forcing decides it in one pass: if every argmax equals its label, so does decoding.

    Args:
        logits: [B, T, V].
        labels: int [B, T], -100 where not supervised.

    Returns:
        bool [B]; rows without a supervised token are False.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE
    right = (jnp.argmax(logits[:, :-1], axis=-1) == targets) | ~supervised
    return jnp.all(right, axis=1) & jnp.any(supervised, axis=1)


def token_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Mean over all supervised tokens of the batch, the loss of transformers' models."""
    return jnp.sum(nll) / jnp.maximum(jnp.sum(count), 1)


def example_mean(nll: jax.Array, count: jax.Array) -> jax.Array:
    """Every example's mean over its own supervised tokens, [B]; 0 where there are none."""
    return nll / jnp.maximum(count, 1)
