"""The refusals that IdkNLL teaches in place of the answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmunlearner_jax.data.samples import Sample

REFUSALS = (
    "I don't know.",
    "I'm not sure.",
    "I cannot tell from this picture.",
    "I don't know who this person is.",
    "I have no information about this person.",
    "I'm sorry, I can't answer that.",
    "That is not something I know.",
    "I'm unable to say.",
    "I was never told about this.",
    "I can't help with that question.",
)


def refused(samples: Sequence[Sample], _: Sequence[Sample], seed: int) -> list[Sample]:
    """Returns the samples with a refusal as the answer, drawn by the seed."""
    drawn = np.random.default_rng(seed).integers(len(REFUSALS), size=len(samples))
    return [
        dataclasses.replace(sample, answer=REFUSALS[n])
        for sample, n in zip(samples, drawn, strict=True)
    ]
