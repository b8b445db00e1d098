"""Values that a program gives for each sample, in the order of the samples.

Axes: N samples, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import process_rows, put_batch

if TYPE_CHECKING:
    from mmunlearner_jax.data.samples import Sample
    from mmunlearner_jax.session import Session


def per_sample(
    session: Session,
    params: Any,
    samples: Sequence[Sample],
    program: Callable[[Any, Any], Any],
    *,
    beside: Mapping[str, np.ndarray] | None = None,
    axis: int = 0,
) -> Any:
    """Runs a program on batches of `config.evaluate.decode.batch_size` samples.

    Args:
        session: Session of the run.
        params: All parameters of the model.
        samples: The samples; all have a picture.
        program: Jitted function of parameters and a batch, as `Batches` makes it with answers as
            labels; it returns a tree of arrays with an axis of B rows.
        beside: Further arrays of the batch, [N, ...] by name.
        axis: Number of the axis of rows in what the program returns.

    Returns:
        The tree, arrays of NumPy with N in place of B.

    Raises:
        Diverged: A value is not finite.
    """
    size = session.config.evaluate.decode.batch_size
    batches = session.batches(
        list(samples),
        batch_size=size,
        pack=1,
        encoder=session.answers,
        shuffle=False,
        repeat=False,
    )
    own, parts = process_rows(session.mesh, size), []
    for number, batch in enumerate(batches):
        rows = np.minimum(number * size + own, len(samples) - 1)  # repetitions fill the last batch
        added = {name: array[rows] for name, array in (beside or {}).items()}
        parts.append(to_host(program(params, put_batch({**batch, **added}, session.mesh))))
    made = jax.tree.map(lambda *x: np.concatenate(x, axis).take(range(len(samples)), axis), *parts)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(made)):
        raise Diverged("the model's activations are not finite: its weights are damaged")
    return made
