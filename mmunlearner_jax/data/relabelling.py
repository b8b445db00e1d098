"""The answers of other people, which some methods teach about the people to forget."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmunlearner_jax.data.samples import Sample


def of_strangers(samples: Sequence[Sample], others: Sequence[Sample], seed: int) -> list[Sample]:
    """Returns the samples with the answers of a stranger, one for each person.

    A stranger answers the same question, or where nobody asked him that, his question at the same
    place.

    Args:
        samples: What the people to forget are asked.
        others: What other people are asked, with their answers; one or more.
        seed: Draws the strangers.
    """
    asked, known = _by_person(samples), _by_person(others)
    people, rng = sorted(known), np.random.default_rng(seed)
    answers = {}
    for person in sorted(asked):
        stranger = known[people[rng.integers(len(people))]]
        places = [*stranger.values()]
        for place, question in enumerate(asked[person]):
            answer = stranger.get(question, places[place % len(places)])
            answers[person, question] = answer
    return [dataclasses.replace(s, answer=answers[s.person, s.question]) for s in samples]


def _by_person(samples: Sequence[Sample]) -> dict[str, dict[str, str]]:
    """Returns each person's answers by question, in the order of the questions."""
    found: dict[str, dict[str, str]] = {}
    for sample in samples:
        found.setdefault(sample.person, {}).setdefault(sample.question, sample.answer)
    return found
