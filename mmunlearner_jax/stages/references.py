"""What methods ask the vanilla model about samples before anything moves: once a workdir."""

import functools
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from tqdm import tqdm

from mmunlearner_jax.data.references import References
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.processes import is_first, to_host
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages.setup import Setup
from mmunlearner_jax.unlearn.objectives import Reference


def asked_beforehand(
    at: Setup, reference: Reference, samples: Sequence[Sample], *, batch_size: int
) -> References:
    """What the vanilla model says of samples, from `references/` where it was asked before.

    Args:
        at: the model, which nothing has moved.
        reference: what it is asked.
        samples: all with a picture or all without.
        batch_size: samples that it sees together.
    """
    folder = at.workdir / "references" / reference.name
    kept = References(folder, reference.name, reference.slots, at.encoder)
    if all(sample in kept for sample in samples):
        return kept
    # An interrupted run goes on with the batches that it would have had: their padding may decide
    # the last bit.
    batches = at.batches(list(samples), batch_size=batch_size, pack=1, shuffle=False, repeat=False)
    ask = jax.jit(functools.partial(reference.ask, at.graphdef))

    def answers() -> Iterator[tuple[Sequence[Sample], np.ndarray]]:
        bar = tqdm(batches, desc="vanilla model", disable=not is_first(), file=sys.stderr)
        for number, batch in enumerate(bar):
            together = samples[number * batch_size :][:batch_size]
            if not all(sample in kept for sample in together):
                yield together, to_host(ask(at.params, put_batch(batch, at.mesh)))

    kept.add(answers())
    return kept
