"""The steps of the loop, pure jitted functions of a train state: retain steps and forget steps.

One optimizer state may serve both, as published, or each may keep its own: the state holds one
or two of them, and the steps differ only in which one they take. Frozen parameters are no part of
it: a step is given them beside the batches, and neither moves them nor computes their gradients.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import optax
from flax import nnx, struct

from mmunlearner_jax.sharding import settled
from mmunlearner_jax.unlearn.losses import Terms, cross_entropy, mean, say
from mmunlearner_jax.unlearn.scoring import NOTHING, Batch, Params, exact_answers


class TrainState(struct.PyTreeNode):
    """Everything a step reads and writes.

    Attributes:
        params: The model's parameters, but for the frozen ones.
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


def mean_loss(
    graphdef: nnx.GraphDef, params: Params, batches: Sequence[Batch], loss: Terms = cross_entropy
) -> jax.Array:
    """A loss over several batches together (pictures and text have their own shapes).

    Args:
        graphdef: Of the model.
        params: Of the model.
        batches: Dicts as `objectives.say` takes them.
        loss: By default nats per supervised token.

    Returns:
        Float32 scalar.
    """
    return mean(loss(say(graphdef, params, batch)) for batch in batches)


def _update(graphdef, optimizer, loss, which, state, batches, frozen, **extra):
    def value(params):
        return mean_loss(graphdef, nnx.merge_state(params, frozen), batches, loss)

    found, grads = jax.value_and_grad(value)(state.params)
    opt_states = list(state.opt_states)
    updates, opt_states[which] = optimizer.update(grads, opt_states[which], state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, tuple(opt_states)), found


def retain_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, loss: Terms = cross_entropy
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """The jitted retain (or fine-tuning) step `(state, batches, frozen) -> (state, loss)`.

    It moves all weights of the state, which is donated; `frozen` are the others, by default none.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def descend(
        state: TrainState, batches: Sequence[Batch], frozen: Params = NOTHING
    ) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, loss, -1, state, batches, frozen)

    return descend


def forget_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Terms = cross_entropy,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """The jitted forget step `(state, batches, mask, frozen) -> (state, loss)`.

    `optimizer` holds a `masked_ascent` or a `masked_descent`, and the mask is of the state's
    parameters. The state is donated; `frozen` are the other parameters, by default none.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def ascend(
        state: TrainState, batches: Sequence[Batch], mask: Params, frozen: Params = NOTHING
    ) -> tuple[TrainState, jax.Array]:
        return _update(graphdef, optimizer, loss, 0, state, batches, frozen, mask=mask)

    return ascend


def exact_counter(
    graphdef: nnx.GraphDef,
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """Jitted `(params, batch) -> (right, answers)`: how many answers greedy decoding would give."""
    return jax.jit(functools.partial(exact_answers, graphdef))
