"""Relearning: whether a few fine-tuning steps on one picture of each person bring faces back.

A gold model, which never saw the faces, says how fast something new is learned. An unlearned model
that learns faster had hidden what it knows.
"""

from collections.abc import Iterator
from typing import Any

from mmunlearner_jax.audit.finetuning import finetuned
from mmunlearner_jax.data.samples import one_picture_each
from mmunlearner_jax.session import Session


def relearned(session: Session, params: Any) -> Iterator[tuple[int, Any]]:
    """Yields a model's parameters after each number of steps in `config.compare.relearn_steps`.

    They are only valid until the next ones are yielded.

    Args:
        session: Session of the run.
        params: All parameters, which stay as they are.
    """
    options = session.config.compare
    samples = one_picture_each(session.pictures(session.forget))
    return finetuned(
        session,
        params,
        samples,
        rate=options.relearn_rate,
        steps=options.relearn_steps,
        batch=options.relearn_batch,
    )
