"""Relearning: whether a few fine-tuning steps on one picture of each person bring faces back.

A gold model, which never saw the faces, says how fast something new is learned. An unlearned model
that learns faster had hidden what it knows.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.steps import TrainState, retain_step

_STREAM = 4  # other batches than those of unlearning


class Relearner:
    """Fine-tunes models on one picture of each person to forget.

    Args:
        session: Session of the run.
    """

    def __init__(self, session: Session):
        self._session, self._options = session, session.config.compare
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(self._options.relearn_rate)
        )
        self._step = retain_step(session.graphdef, self._optimizer)

    def relearn(self, params: Any) -> Any:
        """Returns a model's parameters after `config.compare.relearn_steps` steps.

        Args:
            params: All parameters, which stay as they are.
        """
        frozen, moving = self._session.split_frozen(params)
        state = TrainState.create(jax.tree.map(jnp.copy, moving), self._optimizer)
        for batch, _ in zip(self._batches, range(self._options.relearn_steps), strict=False):
            state, _ = self._step(state, [put_batch(batch, self._session.mesh)], frozen)
        return nnx.merge_state(state.params, frozen)

    @functools.cached_property
    def _batches(self) -> Any:
        session = self._session
        return session.batches(
            one_picture_each(session.pictures(session.forget)),
            batch_size=self._options.relearn_batch,
            pack=1,
            stream=_STREAM,
        )


def one_picture_each(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the samples about the first picture of each person, in order."""
    first: dict[str, bytes | None] = {}
    for sample in samples:
        first.setdefault(sample.person, sample.image)
    return [sample for sample in samples if sample.image == first[sample.person]]
