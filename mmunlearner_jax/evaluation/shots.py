"""MLLMU-Bench's few-shot setting: all questions of one person, solved, before each question.

"One shot" is one person, so multiple choice is shown up to five solved questions of its modality,
a blank up to two; open questions are never shown any.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mmunlearner_jax.data.mllmu import MLLMUBench
from mmunlearner_jax.data.samples import Question

_TASKS = ("classification", "cloze")
Splits = dict[str, list[Question]]


def with_shots(
    bench: MLLMUBench,
    splits: Mapping[str, Sequence[Question]],
    *,
    retain: str,
    protocol: Literal["strict", "released"],
) -> Splits:
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
    rng = np.random.default_rng(bench.seed)
    drawn = str(rng.choice(bench.people(retain)))
    shown = bench.people("Full_Set")
    found: Splits = {}
    for split, questions in splits.items():
        if protocol == "released":
            drawn = str(rng.choice(list(dict.fromkeys(q.person for q in questions))))
        solved = (
            bench.questions("Full_Set", people=[drawn], photos_per_person=1)
            if drawn in shown
            else []
        )
        found[split] = [
            dataclasses.replace(question, shots=_for(question, solved, split, protocol))
            for question in questions
            if question.person != drawn
        ]
    return found


def _for(
    question: Question, solved: Sequence[Question], split: str, protocol: str
) -> tuple[Question, ...]:
    kind = question.task, question.modality
    if kind[0] not in _TASKS:
        return ()
    if protocol == "released" and split == "realworld" and kind[0] == "classification":
        return ()
    return tuple(shot for shot in solved if (shot.task, shot.modality) == kind)
