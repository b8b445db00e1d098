"""Single predictions in a report: examples with their photographs, and results by person."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.data.benchmarks.base import Benchmark
from mmunlearner_jax.data.clips import still
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.evaluation.scores import Score, accuracy
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.reporting.verdicts import Verdict, floor_of, judge

IN_WORDS = "In words"  # what is asked so should stay
BY_PERSON = {
    "Training photographs": ("forget", "vqa"),
    "Unseen photographs": ("test", "vqa"),
    IN_WORDS: ("forget", "qa"),
}
LOST, KEPT = (True, False), (True, True)


class Case(NamedTuple):
    """One question: its lines in `predictions/` before and after unlearning, and its photograph."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    photo: bytes | None

    @property
    def right(self) -> tuple[bool, bool]:
        """Whether the answers before and after unlearning are right."""
        return self.before["correct"], self.after["correct"]


@dataclass(frozen=True)
class Example:
    """A question that the page shows.

    Attributes:
        title: How the question was asked.
        person: Name of the person in question.
        picture: Data URI; None for a question in words.
        question: Text of the question.
        answer: The true answer.
        responses: The model's answers before and after unlearning.
        right: Whether these answers are right.
        count: A sentence with the number of such questions that went as intended.
    """

    title: str
    person: str
    picture: str | None
    question: str
    answer: str
    responses: tuple[str, str]
    right: tuple[bool, bool]
    count: str


@dataclass(frozen=True)
class Person:
    """Multiple-choice scores of one forgotten person.

    Attributes:
        name: Name of the person.
        picture: Data URI of an unseen photograph.
        scores: Their kinds of questions in the order of `BY_PERSON`, without those of no question.
    """

    name: str
    picture: str | None
    scores: list["PersonScore"]


class PersonScore(NamedTuple):
    """A person's scores of one kind of question (`BY_PERSON`) before and after, and the verdict."""

    kind: str
    before: Score
    after: Score
    verdict: Verdict


class Predictions:
    """The predictions before and after unlearning, side by side, with the benchmark's photographs.

    Attributes:
        names: Name of each person, by ID.
        taught: Number of people that the model had learned.
        cases: Questions by split, in the order of the files.
    """

    def __init__(
        self, workdir: Path, bench: Benchmark, questions: Mapping[str, Sequence[Question]]
    ):
        """Reads `predictions/{before,after}-*.jsonl`.

        Args:
            workdir: Folder of the run.
            bench: Reader of the benchmark, which has the people's names.
            questions: The run's questions with their photographs, by split.

        Raises:
            InputError: A file is missing or damaged.
        """
        self.names = bench.names()
        self.taught = len(bench.people(bench.everyone))
        # The evaluation may have left out pictures that its model cannot take, so lines and
        # questions are matched by picture.
        photos = {
            fingerprint(question.image): question.image
            for of_split in questions.values()
            for question in of_split
            if question.image
        }
        self.cases: dict[str, list[Case]] = {}
        for path in sorted((workdir / "predictions").glob("before-*.jsonl")):
            split = path.stem.removeprefix("before-")
            before = read_predictions(path)
            after = read_predictions(path.with_name(f"after-{split}.jsonl"))
            self.cases[split] = [
                Case(*lines, photos.get(lines[0]["image"]))
                for lines in zip(before, after, strict=True)
            ]

    @property
    def _others(self) -> str:
        return "test_retain" if "test_retain" in self.cases else "retain"

    @property
    def unseen(self) -> bool:
        """Whether the page shows photographs that were not used in training."""
        return "test" in self.cases

    def people(self, split: str) -> list[str]:
        """Returns the IDs of a split's people in order; CLEAR's text questions name nobody."""
        people = dict.fromkeys(case.before["person"] for case in self.cases[split])
        return [person for person in people if person]

    def chance(self, split: str = "forget") -> float:
        """Returns the accuracy of guessing in a split's multiple choice, 0 to 1."""
        options = [case.before["options"] for case in self.cases[split]]
        return float(np.mean([1 / len(choices) for choices in options if choices]))

    def by_person(
        self, bars: ReportConfig, chances: Mapping[str, Mapping[str, float]]
    ) -> list[Person]:
        """Returns the multiple-choice scores of each forgotten person.

        Args:
            bars: Bars of the verdicts.
            chances: Entry `chance` of `results.json`.
        """
        shown = self.cases["test" if self.unseen else "forget"]
        photos = {case.before["person"]: case.photo for case in shown if case.photo}
        return [
            Person(
                self.names[person],
                picture_uri(photos[person]) if person in photos else None,
                [
                    PersonScore(
                        name, *pair, judge(*pair, bars, falls=name != IN_WORDS, floor=floor)
                    )
                    for name, kind in BY_PERSON.items()
                    if (pair := self._score(person, *kind))
                    for floor in [
                        floor_of("classification", kind, falls=name != IN_WORDS, chances=chances)
                    ]
                ],
            )
            for person in self.people("forget")
        ]

    def examples(self) -> list[Example]:
        """Returns a forgotten face, the same fact in words if there is one, and another's face.

        Each face is the first whose question went as intended, or the first of all if none did.
        The question in words is shown whether or not it went as intended.
        """
        splits = "test" if self.unseen else "forget", self._others
        for task in ("generation", "cloze", "classification"):
            faces, others = (self._of_kind(split, "vqa", task) for split in splits)
            in_words = {
                (case.before["person"], case.before["answer"]): case
                for case in self._of_kind("forget", "qa", task)
            }
            twins = [c for c in faces if (c.before["person"], c.before["answer"]) in in_words]
            faces = twins or faces  # CLEAR asks no question both in words and about a picture
            if faces and others:
                face = next((case for case in faces if case.right == LOST), faces[0])
                other = next((case for case in others if case.right == KEPT), others[0])
                words = in_words.get((face.before["person"], face.before["answer"]))
                candidates = [
                    ("Shown the face", face, LOST),
                    ("Asked in words", words, KEPT),
                    ("Somebody else’s face", other, KEPT),
                ]
                return [self._example(title, it, right) for title, it, right in candidates if it]
        return []

    def _example(self, title: str, case: Case, intended: tuple[bool, bool]) -> Example:
        before, after, photo = case
        similar = self._of_kind(before["split"], before["modality"], before["task"])
        count = sum(other.right == intended for other in similar)
        went = "went from right to wrong" if intended == LOST else "were right and stayed right"
        field = "choice" if before["task"] == "classification" else "response"
        return Example(
            title,
            self.names[before["person"]],
            picture_uri(photo) if photo else None,
            before["question"],
            before["answer"],
            (before[field], after[field]),
            case.right,
            f"{count} of {len(similar)} such questions {went}.",
        )

    def _score(self, person: str, split: str, modality: str) -> tuple[Score, Score] | None:
        cases = self._of_kind(split, modality, "classification")
        right = [case.right for case in cases if case.before["person"] == person]
        if not right:
            return None
        before, after = zip(*right, strict=True)
        return accuracy(before), accuracy(after)

    def _of_kind(self, split: str, modality: str, task: str) -> list[Case]:
        return [
            case
            for case in self.cases.get(split, [])
            if (case.before["modality"], case.before["task"]) == (modality, task)
        ]


def picture_uri(picture: bytes, *, size: int = 320) -> str:
    """Returns an encoded picture as a data URI of a WebP of at most `size` x `size` pixels.

    Of a clip, some frames stand side by side.
    """
    image = still(picture)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=90)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
