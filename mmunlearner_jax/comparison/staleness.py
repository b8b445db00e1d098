"""How much of the forget set's squared gradients lies within a mask, along a run."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmunlearner_jax.processes import to_host
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages.importance import sets
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator

_EXAMPLES = 64  # of the forget set


class Shares:
    """Measures shares of squared gradients.

    A mask that points at the forget set holds most of them. If its share falls to that of a random
    mask while a run goes on, the mask no longer says where the forget set's knowledge lies.

    Args:
        session: Session of the run.
        masks: Masks like the moving parameters, by name.
        covered: Mask of all weights that have a mask.
        every: Forget steps from one measurement to the next.
    """

    def __init__(self, session: Session, masks: Mapping[str, Any], covered: Any, every: int):
        self._session, self._every = session, every
        self._masks = {name: session.split_frozen(mask)[1] for name, mask in masks.items()}
        self._covered = session.split_frozen(covered)[1]
        options = session.config.importance
        batches = session.batches(
            session.drawn(sets(session)["forget"], _EXAMPLES),
            batch_size=options.batch_size,
            pack=options.pack,
            shuffle=False,
            repeat=False,
        )
        self._add = accumulator(session.graphdef, fisher=options.fisher, sizes=batches.sizes)
        self._batches = [put_batch(batch, session.mesh) for batch in batches]

    def due(self, forget_steps: int) -> bool:
        """Returns whether to measure after so many forget steps."""
        return forget_steps % self._every == 0

    def measure(self, params: Any) -> dict[str, float]:
        """Returns, by mask, the share of squared gradients that it holds, 0 to 1.

        Args:
            params: All parameters of a model.
        """
        frozen, moving = self._session.split_frozen(params)
        sums = FisherSums.zeros(moving)
        for batch in self._batches:
            sums = self._add(sums, moving, batch, frozen)
        return {
            name: float(to_host(_share(sums.mean(), mask, self._covered)))
            for name, mask in self._masks.items()
        }


@jax.jit
def _share(squares: Any, mask: Any, covered: Any) -> jax.Array:
    """Returns the share of squares within a mask among those of the covered weights."""

    def total(where: Any) -> jax.Array:
        parts = jax.tree.map(lambda f, m: jnp.sum(f, where=m), squares, where)
        return jnp.sum(jnp.stack(jax.tree.leaves(parts)))

    inside = jax.tree.map(jnp.logical_and, mask, covered)
    return total(inside) / total(covered)
