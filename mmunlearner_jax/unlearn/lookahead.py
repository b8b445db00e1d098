"""The gradient of a loss where fine-tuning would lead: what relearning brings back counts.

A forget step that looks at the model alone ends where behaviour has changed; a few steps of
fine-tuning on one picture may bring the rest back. This one fine-tunes a copy for a few steps,
takes the gradient there, and moves the model by it. It is of first order: the copy moves with the
model one to one, so no second derivative is taken.

Sources: Finn et al. 2017 (arXiv 1703.03400, section 5.2); Tamirisa et al. 2024, "Tamper-resistant
safeguards" (arXiv 2408.00761).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmunlearner_jax.unlearn.scoring import Batch, Params

# Returns a value and its gradient, given the moving parameters, batches and frozen parameters.
Gradient = Callable[[Params, Sequence[Batch], Params], tuple[jax.Array, Params]]


class Ahead(NamedTuple):
    """The fine-tuning before a gradient.

    Attributes:
        steps: Number of steps, 1 or more.
        rate: Learning rate of Adam.
    """

    steps: int
    rate: float


def clipped_adam(rate: float) -> optax.GradientTransformation:
    """Returns Adam at a constant learning rate, whose gradient is clipped to norm 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def gradient_ahead(gradient: Gradient, learned: Gradient, ahead: Ahead) -> Gradient:
    """Returns the gradient of a value after some steps of fine-tuning.

    The steps are those of a relearning attack (`audit.finetuning`) without its weight decay: Adam,
    whose state is empty at first, with the gradient clipped to norm 1. The copy is float32, because
    bfloat16 would lose such small updates.

    Args:
        gradient: Gradient of the value. It gets all batches but the last one.
        learned: Gradient of what fine-tuning lowers. It gets the last batch, in every step.
        ahead: The fine-tuning.
    """
    adam = clipped_adam(ahead.rate)

    def after(params: Params, batches: Sequence[Batch], frozen: Params):
        *seen, shown = batches

        def learn(_: Any, carry: tuple[Params, optax.OptState]) -> tuple[Params, optax.OptState]:
            there, state = carry
            _, grads = learned(there, [shown], frozen)
            updates, state = adam.update(grads, state, there)
            return optax.apply_updates(there, updates), state

        copy = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        there, _ = jax.lax.fori_loop(0, ahead.steps, learn, (copy, adam.init(copy)))
        value, grads = gradient(there, seen, frozen)
        return value, jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)

    return after
