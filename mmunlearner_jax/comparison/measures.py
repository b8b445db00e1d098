"""What the open answers of one variant in one cell come to, and signs of decay in them."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.data.refusals import REFUSALS
from mmunlearner_jax.evaluation.short_answers import collapsed
from mmunlearner_jax.evaluation.texts import words

# By task: metric -> the field of a line that it is the mean of.
METRICS = {
    "cloze": {"cloze": "correct"},
    "naming": {"naming": "correct"},
    "short": {"short": "correct", "vqa_score": "credit"},
    "generation": {"rouge1": "rouge1", "rougeL": "rougeL", "right": "right"},
}


class Decay(NamedTuple):
    """Open answers that are none; all but `n` are fractions of the answers.

    Attributes:
        empty: Answers of nothing but blanks.
        repeated: Answers with a word three times running, or three words in a row that come again.
        gibberish: Answers that are not empty, no refusal, and have no word of any true answer of
            their split.
        refused: Answers that are one of `data.refusals`.
        n: Number of answers.
    """

    empty: float
    repeated: float
    gibberish: float
    refused: float
    n: int


@dataclass(frozen=True)
class Measured:
    """The open answers of one variant in one cell.

    Attributes:
        means: Mean and number of lines, by kind and metric.
        decay: Signs of decay, by kind.
    """

    means: dict[Kind, dict[str, tuple[float, int]]]
    decay: dict[Kind, Decay]


@functools.cache
def measure(cell: Cell, variant: str) -> Measured:
    """Reads the predictions of a variant once, and keeps what they come to."""
    measured = Measured({}, {})
    for split in cell.splits(variant):
        kinds: dict[Kind, list[Mapping[str, Any]]] = defaultdict(list)
        for line in collapsed(cell.lines(variant, split)):
            kinds[split, line["modality"]].append(line)
        open_lines = [x for lines in kinds.values() for x in lines if x["task"] == "generation"]
        known = {word for line in open_lines for word in words(line["answer"])}
        for kind, lines in kinds.items():
            values: dict[str, list[float]] = defaultdict(list)
            for line in lines:
                for metric, field in METRICS[line["task"]].items():
                    if field in line:  # few questions have accepted answers
                        values[metric].append(line[field])
            measured.means[kind] = {m: (float(np.mean(v)), len(v)) for m, v in values.items()}
            if answers := [line["response"] for line in lines if line["task"] == "generation"]:
                measured.decay[kind] = decay(answers, known)
    return measured


def decay(answers: Sequence[str], known: set[str]) -> Decay:
    """Returns signs that a model can no longer speak.

    Args:
        answers: Open answers, at least one.
        known: Words of all true answers of the split, in lower case.
    """
    refusals = {tuple(words(refusal)) for refusal in REFUSALS}
    spoken = [words(answer) for answer in answers]
    refused = [tuple(answer) in refusals for answer in spoken]
    strange = [
        bool(answer) and not no and known.isdisjoint(answer)
        for answer, no in zip(spoken, refused, strict=True)
    ]
    return Decay(
        float(np.mean([not answer.strip() for answer in answers])),
        float(np.mean([repeats(answer) for answer in spoken])),
        float(np.mean(strange)),
        float(np.mean(refused)),
        len(answers),
    )


def repeats(spoken: Sequence[str]) -> bool:
    """Whether a word comes three times running, or three words in a row come again."""
    triples = list(zip(spoken, spoken[1:], spoken[2:], strict=False))
    return any(len(set(t)) == 1 for t in triples) or len(set(triples)) < len(triples)
