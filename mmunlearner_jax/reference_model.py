"""What methods ask the vanilla model about samples before anything moves: once a workdir."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from mmunlearner_jax.data.noising import noised
from mmunlearner_jax.data.references import References
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.progress import Progress
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.losses import Reference

# What is asked about samples, by `Reference.about`, given the samples and the seed.
_ASKED: Mapping[str, Callable[[Sequence[Sample], int], list[Sample]]] = {
    "own": lambda samples, _: list(samples),
    "noised": noised,
}


def ask_vanilla(
    session: Session, reference: Reference, samples: Sequence[Sample], *, batch_size: int
) -> References:
    """Returns what the vanilla model says of samples, from `references/` where that is known.

    Args:
        session: Session of the run; no step has moved its model.
        reference: Scores that the vanilla model computes.
        samples: All with a picture or all without.
        batch_size: Samples that the model sees together.
    """
    folder = session.workdir / "references"
    folder = folder / reference.name if reference.about == "own" else folder / reference.about
    kept = References(folder, reference.name, reference.slots, session.encoder)
    if all(sample in kept for sample in samples):
        return kept
    asked = _ASKED[reference.about](samples, session.config.seed)
    # An interrupted run goes on with the batches that it would have had: their padding may decide
    # the last bit.
    batches = session.batches(asked, batch_size=batch_size, pack=1, shuffle=False, repeat=False)
    ask = jax.jit(functools.partial(reference.ask, session.graphdef))

    def answers() -> Iterator[tuple[Sequence[Sample], np.ndarray]]:
        with Progress("vanilla model", len(samples), unit="sample") as progress:
            for number, batch in enumerate(batches):
                together = samples[number * batch_size :][:batch_size]
                if not all(sample in kept for sample in together):
                    yield together, to_host(ask(session.params, put_batch(batch, session.mesh)))
                progress.update(len(together))

    kept.add(answers())
    return kept
