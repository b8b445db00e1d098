"""The steps of the loop, pure jitted functions of a train state: descent and masked ascent.

One optimizer state may serve both, as published, or each may keep its own: the state holds one
or two of them, and the steps differ only in which one they take.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from mmunlearner_jax.sharding import settled
from mmunlearner_jax.unlearn.losses import Batch, Params, answer_nll, exact_answers


class TrainState(struct.PyTreeNode):
    """Everything a step reads and writes.

    Attributes:
        params: the model's parameters.
        opt_states: (shared,) or (forget's, retain's).
    """

    params: Params
    opt_states: tuple[optax.OptState, ...]

    @classmethod
    def create(
        cls, params: Params, optimizer: optax.GradientTransformation, *, optimizers: int = 1
    ) -> "TrainState":
        """A new state with `optimizers` optimizer states (1: shared)."""
        states = tuple(optimizer.init(params) for _ in range(optimizers))
        return cls(params, settled(states, params))


def mean_answer_loss(graphdef: nnx.GraphDef, params: Params, batches: Sequence[Batch]) -> jax.Array:
    """Token-mean loss over several batches together (pictures and text have their own shapes).

    Args:
        graphdef: of the model.
        params: of the model.
        batches: dicts as `losses.answer_scores` takes them.

    Returns:
        float32 scalar, nats per supervised token.
    """
    total, tokens = jnp.zeros(()), jnp.zeros((), jnp.int32)
    for batch in batches:
        nll, count = answer_nll(graphdef, params, batch)
        total, tokens = total + jnp.sum(nll), tokens + jnp.sum(count)
    return total / jnp.maximum(tokens, 1)


def _update(graphdef, optimizer, which, state, batches, **extra):
    loss, grads = jax.value_and_grad(lambda p: mean_answer_loss(graphdef, p, batches))(state.params)
    opt_states = list(state.opt_states)
    updates, opt_states[which] = optimizer.update(grads, opt_states[which], state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, tuple(opt_states)), loss


def descent_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Sequence[Batch]], tuple[TrainState, jax.Array]]:
    """The jitted retain (or fine-tuning) step, on all weights; the state is donated."""

    @functools.partial(jax.jit, donate_argnums=0)
    def descend(state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, -1, state, batches)

    return descend


def ascent_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[TrainState, Sequence[Batch], Params], tuple[TrainState, jax.Array]]:
    """The jitted forget step; `optimizer` holds a `masked_ascent`. The state is donated."""

    @functools.partial(jax.jit, donate_argnums=0)
    def ascend(
        state: TrainState, batches: Sequence[Batch], mask: Params
    ) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, 0, state, batches, mask=mask)

    return ascend


def exact_counter(
    graphdef: nnx.GraphDef,
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """Jitted `(params, batch) -> (right, answers)`: how many answers greedy decoding would give."""
    return jax.jit(functools.partial(exact_answers, graphdef))
