"""Perplexity of the text that a model was taught about people who are to be kept."""

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.scoring import answer_nll

if TYPE_CHECKING:
    from mmunlearner_jax.session import Session

_TEXTS = 256  # taught answers
_MOST_NATS = 700.0  # of a token; more is no float64


def kept_text(session: "Session") -> Iterable[Mapping[str, Any]]:
    """Returns batches of text that is taught about the people to keep.

    Args:
        session: Session of the run.
    """
    return session.batches(
        session.drawn(session.words(session.retain), _TEXTS),
        batch_size=session.config.evaluate.decode.batch_size,
        pack=1,
        encoder=session.answers,
        shuffle=False,
        repeat=False,
    )


def perplexity(
    session: "Session", params: Any, batches: Iterable[Mapping[str, Any]], *, label: str
) -> float:
    """Returns the perplexity of the supervised tokens of all batches.

    Args:
        session: Session of the run.
        params: All parameters of the model.
        batches: Batches as `Batches` makes them, at least one.
        label: Name of the model in the error.

    Raises:
        Diverged: A likelihood is not finite.
    """
    nats = _nats(session.graphdef)
    sums = [to_host(nats(params, put_batch(batch, session.mesh))) for batch in batches]
    total, tokens = (sum(float(np.sum(x)) for x in column) for column in zip(*sums, strict=True))
    if not total >= 0:
        raise Diverged(f"{label}: the log-likelihood of a text is not a number")
    return float(np.exp(min(total / tokens, _MOST_NATS)))


@functools.lru_cache(1)
def _nats(graphdef: Any) -> Any:
    return jax.jit(functools.partial(answer_nll, graphdef))
