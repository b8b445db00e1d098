"""Losses of single examples, and their squared gradients in one pass."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.models import squares


def losses(graphdef, params, batch):
    """Returns the summed next-token loss of every example [B]."""
    logits = nnx.merge(graphdef, params)(**batch)[:, :-1]
    mask = batch["attention_mask"]
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["input_ids"][:, 1:])
    return jnp.sum(nll * mask[:, 1:] * mask[:, :-1], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def in_one_pass(graphdef, params, batch, kind="examples"):
    def loss(slots):
        return jnp.sum(losses(graphdef, squares.probe(params, slots, kind=kind), batch))

    return jax.value_and_grad(loss)(jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params))
