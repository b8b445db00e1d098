"""The path of a short ascent on the forget set, along which importances are measured.

On a fitted model squared gradients say where the little loss that is left comes from. A few ascent
steps away they say what unlearning will meet. Nothing of the path is kept: the run that uses the
mask begins at the vanilla model.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.steps import TrainState, path_step
from mmunlearner_jax.weights.io import in_groups

_STREAM = 5  # other batches than those of unlearning


def ascent_path(session: Session) -> Callable[[], Iterator[Any]]:
    """Returns a function that walks along `config.importance.path`.

    It yields the moving parameters at each point; they are only valid until the next ones are
    yielded. All walks are the same and share one compiled step.

    Args:
        session: Session of the run, with the vanilla model's parameters.
    """
    options = session.config.importance
    path = options.path
    ascend, adam = path_step(session.graphdef, path.learning_rate)
    still = in_groups(session.model.config.model_type, {*GROUPS} - {*path.moves})

    def walk() -> Iterator[Any]:
        held, moving = nnx.split_state(session.moving, still, ...)
        frozen = nnx.merge_state(session.frozen, held)
        state = TrainState.create(jax.tree.map(jnp.copy, moving), adam)
        batches = session.batches(
            session.pictures(session.forget),
            batch_size=options.batch_size,
            pack=options.pack,
            stream=_STREAM,
        )
        for number, batch in zip(range(1, path.points * path.every + 1), batches, strict=False):
            state, _ = ascend(state, [put_batch(batch, session.mesh)], frozen)
            if number % path.every == 0:
                yield nnx.merge_state(state.params, held)

    return walk
