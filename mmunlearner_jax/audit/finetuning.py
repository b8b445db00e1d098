"""Fine-tuning that follows a model: attacks ask it after some of the steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.steps import TrainState, retain_step

if TYPE_CHECKING:
    from mmunlearner_jax.data.samples import Sample
    from mmunlearner_jax.session import Session

_STREAM = 4  # other batches than those of unlearning


class Finetuner:
    """Fine-tunes copies of models; all learning rates share one program.

    Args:
        session: Session of the run.
        batch: Questions of a step.
    """

    def __init__(self, session: Session, batch: int):
        self._session, self._batch = session, batch
        self._step = retain_step(session.graphdef, _optimizer(0.0))

    def follow(
        self, params: Any, samples: Sequence[Sample], rate: float, steps: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Yields a model's parameters after some of its steps.

        Args:
            params: All parameters, which stay as they are.
            samples: What is learned.
            rate: Learning rate of AdamW.
            steps: Numbers of steps at which the parameters are yielded, increasing. They are only
                valid until the next ones are yielded.
        """
        session = self._session
        frozen, moving = session.split_frozen(params)
        state = TrainState.create(jax.tree.map(jnp.copy, moving), _optimizer(rate))
        batches = session.batches(list(samples), batch_size=self._batch, pack=1, stream=_STREAM)
        for number, batch in zip(range(1, max(steps) + 1), batches, strict=False):
            state, _ = self._step(state, [put_batch(batch, session.mesh)], frozen)
            if number in steps:
                yield number, nnx.merge_state(state.params, frozen)


@functools.lru_cache(1)
def finetuner(session: Session, batch: int) -> Finetuner:
    """Returns a session's fine-tuner, so that attacks share its compiled program."""
    return Finetuner(session, batch)


def _optimizer(rate: float) -> optax.GradientTransformation:
    def descent(learning_rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(learning_rate))

    # The rate is part of the state, not of the program.
    return optax.inject_hyperparams(descent)(learning_rate=rate)
