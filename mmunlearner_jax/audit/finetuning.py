"""Fine-tuning that follows a model: attacks ask it after some of the steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import nnx

from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.steps import TrainState, retain_step

if TYPE_CHECKING:
    from mmunlearner_jax.audit.attack import Target
    from mmunlearner_jax.data.samples import Question, Sample
    from mmunlearner_jax.session import Session

_STREAM = 4  # other batches than those of unlearning


def finetuned(
    session: Session,
    params: Any,
    samples: Sequence[Sample],
    *,
    rate: float,
    steps: Sequence[int],
    batch: int,
) -> Iterator[tuple[int, Any]]:
    """Yields a model's parameters after some steps of fine-tuning.

    All learning rates share one program.

    Args:
        session: Session of the run.
        params: All parameters, which stay as they are.
        samples: What is learned.
        rate: Learning rate of AdamW.
        steps: Numbers of steps at which the parameters are yielded. They are only valid until the
            next ones are yielded.
        batch: Questions of a step.
    """
    step = _step(session)
    frozen, moving = session.split_frozen(params)
    state = TrainState.create(jax.tree.map(jnp.copy, moving), _optimizer(rate))
    batches = session.batches(list(samples), batch_size=batch, pack=1, stream=_STREAM)
    for number, learned in zip(range(1, max(steps) + 1), batches, strict=False):
        state, _ = step(state, [put_batch(learned, session.mesh)], frozen)
        if number in steps:
            yield number, nnx.merge_state(state.params, frozen)


def answers_after(
    target: Target,
    params: Any,
    samples: Sequence[Sample],
    questions: Sequence[Question | None],
    *,
    rate: float,
    steps: Sequence[int],
    batch: int,
) -> dict[int, np.ndarray]:
    """Fine-tunes a model and asks it; a rate at which it diverges ends there, with a warning.

    Args:
        target: What is attacked.
        params: As in `finetuned`.
        samples: As in `finetuned`.
        questions: As in `Target.answers`.
        rate: As in `finetuned`.
        steps: As in `finetuned`.
        batch: As in `finetuned`.

    Returns:
        How right the answers are, float64 [Q], by number of steps.
    """
    rights: dict[int, np.ndarray] = {}
    models = finetuned(target.session, params, samples, rate=rate, steps=steps, batch=batch)
    try:
        for number, model in models:
            rights[number] = target.answers(model, questions, f"{number} steps at {rate:g}")
    except Diverged as error:
        logging.warning("fine-tuning at %g ends after %d steps: %s", rate, len(rights), error)
    return rights


@functools.lru_cache(1)
def _step(session: Session) -> Any:
    """Returns a session's jitted step, which attacks share."""
    return retain_step(session.graphdef, _optimizer(0.0))


def _optimizer(rate: float) -> optax.GradientTransformation:
    def descent(learning_rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(learning_rate))

    # The rate is part of the state, not of the program.
    return optax.inject_hyperparams(descent)(learning_rate=rate)
