"""What the lines of one variant in one cell come to: accuracies, by person, and signs of decay."""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.data.refusals import REFUSALS
from mmunlearner_jax.evaluation.texts import words

# By task: metric -> the field of a line that it is the mean of.
METRICS = {
    "classification": {"classification": "correct"},
    "cloze": {"cloze": "correct"},
    "naming": {"naming": "correct"},
    "generation": {"rouge1": "rouge1", "rougeL": "rougeL"},
}


class Decay(NamedTuple):
    """Open answers that are none; all but `n` are fractions of the answers.

    Attributes:
        empty: Nothing but blanks.
        repeated: A word three times running, or three words in a row that come again.
        gibberish: Not empty, no refusal, and no word of any true answer of its split.
        refused: One of `data.refusals`.
        n: Number of answers.
    """

    empty: float
    repeated: float
    gibberish: float
    refused: float
    n: int


@dataclass(frozen=True)
class Measured:
    """One variant in one cell.

    Attributes:
        means: By kind and metric, mean and number of lines.
        people: By kind, the multiple-choice accuracy by person.
        chance: By kind, what guessing gives in multiple choice.
        decay: By kind, of the open answers.
    """

    means: dict[Kind, dict[str, tuple[float, int]]]
    people: dict[Kind, dict[str, float]]
    chance: dict[Kind, float]
    decay: dict[Kind, Decay]


@functools.cache
def measure(cell: Cell, variant: str) -> Measured:
    """Reads all lines of a variant once, and keeps what they come to."""
    found = Measured({}, {}, {}, {})
    for split in cell.splits(variant):
        kinds: dict[Kind, list[dict[str, Any]]] = defaultdict(list)
        for line in cell.lines(variant, split):
            kinds[split, line["modality"]].append(line)
        open_lines = [x for lines in kinds.values() for x in lines if x["task"] == "generation"]
        known = {word for line in open_lines for word in words(line["answer"])}
        for kind, lines in kinds.items():
            _add(found, kind, lines, known)
    return found


def _add(found: Measured, kind: Kind, lines: Sequence[dict[str, Any]], known: set[str]) -> None:
    values: dict[str, list[float]] = defaultdict(list)
    people: dict[str, list[bool]] = defaultdict(list)
    for line in lines:
        for metric, field in METRICS[line["task"]].items():
            values[metric].append(line[field])
        if line["task"] == "classification":
            people[line["person"]].append(line["correct"])
    found.means[kind] = {m: (float(np.mean(v)), len(v)) for m, v in values.items()}
    if people:
        options = [line["options"] for line in lines if line["task"] == "classification"]
        found.people[kind] = {person: float(np.mean(right)) for person, right in people.items()}
        found.chance[kind] = float(np.mean([1 / len(choices) for choices in options]))
    if answers := [line["response"] for line in lines if line["task"] == "generation"]:
        found.decay[kind] = decay(answers, known)


def decay(answers: Sequence[str], known: set[str]) -> Decay:
    """Signs that a model can no longer speak.

    Args:
        answers: Open answers, one at least.
        known: Words of all true answers of the split, in lower case.
    """
    refusals = {tuple(words(refusal)) for refusal in REFUSALS}
    said = [words(answer) for answer in answers]
    refused = [tuple(answer) in refusals for answer in said]
    strange = [
        bool(answer) and not no and known.isdisjoint(answer)
        for answer, no in zip(said, refused, strict=True)
    ]
    return Decay(
        float(np.mean([not answer.strip() for answer in answers])),
        float(np.mean([repeats(answer) for answer in said])),
        float(np.mean(strange)),
        float(np.mean(refused)),
        len(answers),
    )


def repeats(said: Sequence[str]) -> bool:
    """Whether a word comes three times running, or three words in a row come again."""
    triples = list(zip(said, said[1:], said[2:], strict=False))
    return any(len(set(t)) == 1 for t in triples) or len(set(triples)) < len(triples)
