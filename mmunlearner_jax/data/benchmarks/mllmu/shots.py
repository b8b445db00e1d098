"""MLLMU-Bench's few-shot setting: the solved questions of one person precede each question.

"One shot" means one person. A multiple-choice question is preceded by up to five solved questions
of its modality, a blank by up to two, and an open question by none.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mmunlearner_jax.data.benchmarks.base import Questions
from mmunlearner_jax.data.benchmarks.mllmu.reader import MLLMUBench
from mmunlearner_jax.data.samples import Question

_TASKS = ("classification", "cloze")


def with_shots(
    bench: MLLMUBench,
    splits: Mapping[str, Sequence[Question]],
    *,
    retain: str,
    protocol: Literal["strict", "released"],
) -> Questions:
    """Adds demonstrations to the questions, and leaves out questions about the person they show.

    Args:
        bench: The benchmark. Its seed draws the person, and its `Full_Set` has the demonstrations.
        splits: Scored questions, by split.
        retain: Config of the people who are not forgotten.
        protocol: "strict": all splits show one person of `retain`, who is scored in no split, so no
            demonstration is about a person to forget. "released": each split shows one of its own
            people (D-30: in the forget split, one of the people to forget). Nobody of the split
            `realworld` is in `Full_Set`, and its multiple choice has no demonstrations (D-29).

    Returns:
        The questions with demonstrations, by split.
    """
    available = set(bench.people("Full_Set"))

    @functools.cache  # with "strict", every split shows the same person
    def solved(person: str) -> list[Question]:
        if person not in available:
            return []
        return bench.questions("Full_Set", people=[person], photos_per_person=1)

    with_demonstrations: Questions = {}
    for split, questions in splits.items():
        if protocol == "released":
            candidates = list(dict.fromkeys(q.person for q in questions))
            drawn = _draw(candidates, bench.seed, split)
        else:
            drawn = _draw(bench.people(retain), bench.seed, protocol)
        # A celebrity may have the ID of one of the invented people (D-29).
        scored_here = protocol == "released" or split != "realworld"
        with_demonstrations[split] = [
            dataclasses.replace(question, shots=_for(question, solved(drawn), split, protocol))
            for question in questions
            if not (scored_here and question.person == drawn)
        ]
    return with_demonstrations


def _draw(people: Sequence[str], seed: int, salt: str) -> str:
    """Draws one of the people; the choice does not depend on the other splits."""
    return str(np.random.default_rng([seed, zlib.crc32(salt.encode())]).choice(people))


def _for(
    question: Question, solved: Sequence[Question], split: str, protocol: str
) -> tuple[Question, ...]:
    kind = question.task, question.modality
    if kind[0] not in _TASKS:
        return ()
    if protocol == "released" and split == "realworld" and kind[0] == "classification":
        return ()
    return tuple(shot for shot in solved if (shot.task, shot.modality) == kind)
