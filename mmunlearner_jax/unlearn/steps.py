"""The forget and retain steps of the loop: pure jitted functions of a train state.

Both kinds of step may share one optimizer state, as published, or each may have its own. The train
state holds one or two optimizer states, and the steps differ in the one they use. Frozen parameters
are not part of the train state: a step takes them as an argument, and neither moves them nor
computes their gradients.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import optax
from flax import nnx, struct

from mmunlearner_jax.sharding import settled
from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.lookahead import Ahead, clipped_adam, gradient_ahead
from mmunlearner_jax.unlearn.losses import (
    Of,
    Terms,
    cross_entropy,
    mean,
    score_tokens,
)
from mmunlearner_jax.unlearn.scoring import (
    NOTHING,
    Batch,
    Params,
    answer_probabilities,
    exact_answers,
)


class TrainState(struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
        params: The model's moving parameters.
        opt_states: One optimizer state that forget and retain steps share, or two: that of forget
            steps and that of retain steps.
    """

    params: Params
    opt_states: tuple[optax.OptState, ...]

    @classmethod
    def create(cls, params: Params, *optimizers: optax.GradientTransformation) -> "TrainState":
        """Returns a new train state.

        Args:
            params: The moving parameters.
            *optimizers: The optimizer that forget and retain steps share, or that of forget steps
                and that of retain steps.
        """
        states = tuple(optimizer.init(params) for optimizer in optimizers)
        return cls(params, settled(states, params))


def mean_loss(
    graphdef: nnx.GraphDef,
    params: Params,
    batches: Sequence[Batch],
    loss: Terms = cross_entropy,
    of: Of = score_tokens,
) -> jax.Array:
    """Returns the value of a loss over several batches together, a float32 scalar.

    Pictures and text come in separate batches, because their arrays have different shapes. The
    decoder's layers run on all of them in turn (`Llama.run_layers`).

    Args:
        graphdef: Graph definition of the model.
        params: Parameters of the model.
        batches: Dicts as `losses.score_tokens` takes them.
        loss: The loss; by default the mean over supervised tokens in nats.
        of: What the loss is a function of.
    """
    return mean(map(loss, of(graphdef, params, batches)))


def _gradient(value, params, batches, frozen):
    """Returns the value and the gradient of a function of all parameters."""

    def of_moving(params):
        return value(nnx.merge_state(params, frozen), batches)

    return jax.value_and_grad(of_moving)(params)


def _update(gradient, optimizer, which, state, batches, frozen, mask=None, **extra):
    loss, grads = gradient(state.params, batches, frozen)
    if mask is not None:
        # Not before the gradients are there: booleans would take memory beside the activations.
        mask, grads = jax.lax.optimization_barrier((mask, grads))
        extra["mask"] = mask
    opt_states = list(state.opt_states)
    updates, opt_states[which] = optimizer.update(grads, opt_states[which], state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, tuple(opt_states)), loss


def descent_step(
    value: Callable[[Params, Sequence[Batch]], jax.Array], optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the jitted step `(state, batches, frozen) -> (state, value)` that lowers a value.

    The step moves all parameters of the train state, which is donated. `frozen` holds the other
    parameters of the model, by default none.

    Args:
        value: Function of all parameters and the batches; it returns a float32 scalar.
        optimizer: Optimizer that lowers the value.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def descend(
        state: TrainState, batches: Sequence[Batch], frozen: Params = NOTHING
    ) -> tuple[TrainState, jax.Array]:
        gradient = functools.partial(_gradient, value)
        return _update(gradient, optimizer, -1, state, batches, frozen)

    return descend


def retain_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, loss: Terms = cross_entropy
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the `descent_step` of a loss, which retain steps and fine-tuning take.

    Args:
        graphdef: Graph definition of the model.
        optimizer: Optimizer that lowers the loss.
        loss: The loss; by default the mean over supervised tokens in nats.
    """
    return descent_step(_value(graphdef, loss), optimizer)


def path_step(
    graphdef: nnx.GraphDef, rate: float
) -> tuple[Callable[..., tuple[TrainState, jax.Array]], optax.GradientTransformation]:
    """Returns the step of the ascent along which importances are measured, and its optimizer.

    Args:
        graphdef: Graph definition of the model.
        rate: Learning rate of Adam, whose gradient is clipped to norm 1.
    """

    def depth(params: Params, batches: Sequence[Batch]) -> jax.Array:
        return -mean_loss(graphdef, params, batches)

    adam = clipped_adam(rate)
    return descent_step(depth, adam), adam


def anchored_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Terms,
    anchor: Anchor,
    weight: float,
    vanilla: nnx.GraphDef,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the jitted step `(state, batches, frozen, reference) -> (state, value)`.

    It is a `retain_step` whose loss has the anchor's distance added. `reference` holds all
    parameters of the vanilla model, none for an anchor with samples of its own.

    Args:
        graphdef: Graph definition of the model.
        optimizer: Optimizer that lowers the loss.
        loss: The loss.
        anchor: The anchor. It compares the first of a step's batches, that of pictures, or, where
            it has samples of its own, the last one, from which nothing else is learned.
        weight: Factor of the distance.
        vanilla: Graph definition of the vanilla model, which has no adapters.
    """
    value = _value(graphdef, loss)

    @functools.partial(jax.jit, donate_argnums=0)
    def descend(
        state: TrainState, batches: Sequence[Batch], frozen: Params, reference: Params
    ) -> tuple[TrainState, jax.Array]:
        def anchored(params: Params, batches: Sequence[Batch]) -> jax.Array:
            learned, held = (batches[:-1], batches[-1]) if anchor.samples else (batches, batches[0])
            away = anchor.distance((graphdef, params), (vanilla, reference), held)
            return value(params, learned) + weight * away

        gradient = functools.partial(_gradient, anchored)
        return _update(gradient, optimizer, -1, state, batches, frozen)

    return descend


def forget_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Terms = cross_entropy,
    *,
    of: Of = score_tokens,
    ahead: Ahead | None = None,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the jitted step `(state, batches, mask, frozen, preserve) -> (state, loss)`.

    The step moves the parameters of the train state where `mask` is True: a tree of bool with their
    structure and shapes, or its bits along `bits.DEVICES`. The train state is donated.
    `frozen` holds the other parameters of the model, by default none. `preserve` are importances of
    what is kept, like the moving parameters, for an optimizer that takes them.

    Args:
        graphdef: Graph definition of the model.
        optimizer: Optimizer that contains a `masked_ascent` or a `masked_descent`.
        loss: The loss; by default the mean over supervised tokens in nats.
        of: What the loss is a function of.
        ahead: Fine-tuning after which the gradient is taken; the last batch of a step is what it
            learns. None: the gradient is taken at once.
    """
    gradient = functools.partial(_gradient, _value(graphdef, loss, of))
    if ahead:
        learned = functools.partial(_gradient, _value(graphdef, cross_entropy))
        gradient = gradient_ahead(gradient, learned, ahead)

    @functools.partial(jax.jit, donate_argnums=0)
    def ascend(
        state: TrainState,
        batches: Sequence[Batch],
        mask: Params,
        frozen: Params = NOTHING,
        preserve: Params | None = None,
    ) -> tuple[TrainState, jax.Array]:
        extra = {} if preserve is None else {"preserve": preserve}
        return _update(gradient, optimizer, 0, state, batches, frozen, mask=mask, **extra)

    return ascend


def _value(graphdef: nnx.GraphDef, loss: Terms, of: Of = score_tokens) -> Callable[..., jax.Array]:
    def value(params: Params, batches: Sequence[Batch]) -> jax.Array:
        return mean_loss(graphdef, params, batches, loss, of)

    return value


# What is remembered of a batch's answers, by `config.unlearn.stop_by`: a sum, and their number.
MEMORIES = {"exact": exact_answers, "probability": answer_probabilities}


def share(
    remember: Callable[[Params, Batch], tuple[jax.Array, jax.Array]],
    params: Params,
    batches: Iterable[Batch],
) -> float:
    """Returns what is remembered of the answers of all batches, 0 to 1; NaN where a logit is.

    Args:
        remember: A function that `memory` returned.
        params: All parameters.
        batches: Batches on the devices.
    """
    counts = [remember(params, batch) for batch in batches]
    total, answers = (sum(float(x) for x in column) for column in zip(*counts, strict=True))
    return total / answers


def memory(
    graphdef: nnx.GraphDef, by: str
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """Returns the jitted function `(params, batch) -> (sum, answers)` of `MEMORIES`."""
    return jax.jit(functools.partial(MEMORIES[by], graphdef))
