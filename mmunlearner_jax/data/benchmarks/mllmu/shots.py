"""MLLMU-Bench's few-shot setting: all questions of one person, solved, before each question.

"One shot" is one person, so multiple choice is shown up to five solved questions of its modality,
a blank up to two; open questions are never shown any.
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
    """Puts demonstrations before the questions, and leaves out those of the person they show.

    Args:
        bench: whose seed draws the person, out of whose `Full_Set` the demonstrations are.
        splits: scored questions.
        retain: config of the people who are not forgotten.
        protocol: "strict": one person of `retain` for all splits, who is not scored anywhere: no
            demonstration is about somebody who is scored or to be forgotten. "released": one
            person of every split's own, the forgotten among them (D-30); of the real world's
            nobody is in `Full_Set`, and its multiple choice is never shown any (D-29).

    Returns:
        The questions that are asked, by split.
    """
    shown = set(bench.people("Full_Set"))

    @functools.cache  # `strict` shows one person in every split
    def solved(person: str) -> list[Question]:
        if person not in shown:
            return []
        return bench.questions("Full_Set", people=[person], photos_per_person=1)

    found: Questions = {}
    for split, questions in splits.items():
        if protocol == "released":
            candidates = list(dict.fromkeys(q.person for q in questions))
            drawn = _draw(candidates, bench.seed, split)
        else:
            drawn = _draw(bench.people(retain), bench.seed, protocol)
        # By chance a celebrity may have the ID of one of the others (D-29).
        scored_here = protocol == "released" or split != "realworld"
        found[split] = [
            dataclasses.replace(question, shots=_for(question, solved(drawn), split, protocol))
            for question in questions
            if not (scored_here and question.person == drawn)
        ]
    return found


def _draw(people: Sequence[str], seed: int, what: str) -> str:
    """Draws one of them; which other splits are asked doesn't change the choice."""
    return str(np.random.default_rng([seed, zlib.crc32(what.encode())]).choice(people))


def _for(
    question: Question, solved: Sequence[Question], split: str, protocol: str
) -> tuple[Question, ...]:
    kind = question.task, question.modality
    if kind[0] not in _TASKS:
        return ()
    if protocol == "released" and split == "realworld" and kind[0] == "classification":
        return ()
    return tuple(shot for shot in solved if (shot.task, shot.modality) == kind)
