"""The steps of the loop, pure jitted functions of a train state: descent and masked ascent.

One optimizer state may serve both, as published, or each may keep its own: the state holds one
or two of them, and the steps differ only in which one they take. Frozen parameters are no part of
it: a step is given them beside the batches, and neither moves them nor computes their gradients.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from mmunlearner_jax.sharding import settled
from mmunlearner_jax.unlearn.losses import NOTHING, Batch, Params, answer_nll, exact_answers


class TrainState(struct.PyTreeNode):
    """Everything a step reads and writes.

    Attributes:
        params: the model's parameters, but for the frozen ones.
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


def _update(graphdef, optimizer, which, state, batches, frozen, **extra):
    def mean_loss(params):
        return mean_answer_loss(graphdef, nnx.merge_state(params, frozen), batches)

    loss, grads = jax.value_and_grad(mean_loss)(state.params)
    opt_states = list(state.opt_states)
    updates, opt_states[which] = optimizer.update(grads, opt_states[which], state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, tuple(opt_states)), loss


def descent_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """The jitted retain (or fine-tuning) step `(state, batches, frozen) -> (state, loss)`.

    It moves all weights of the state, which is donated; `frozen` are the others, by default none.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def descend(
        state: TrainState, batches: Sequence[Batch], frozen: Params = NOTHING
    ) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, -1, state, batches, frozen)

    return descend


def ascent_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """The jitted forget step `(state, batches, mask, frozen) -> (state, loss)`.

    `optimizer` holds a `masked_ascent`, and the mask is of the state's parameters. The state is
    donated; `frozen` are the other parameters, by default none.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def ascend(
        state: TrainState, batches: Sequence[Batch], mask: Params, frozen: Params = NOTHING
    ) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, 0, state, batches, frozen, mask=mask)

    return ascend


def exact_counter(
    graphdef: nnx.GraphDef,
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """Jitted `(params, batch) -> (right, answers)`: how many answers greedy decoding would give."""
    return jax.jit(functools.partial(exact_answers, graphdef))
