"""What a report shows of single predictions: examples with their photographs, results by person."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmark import open_benchmark
from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.evaluation.scores import accuracy
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.session import benchmark_folder

BY_PERSON = {
    "Training photographs": ("forget", "vqa"),
    "Unseen photographs": ("test", "vqa"),
    "In words": ("forget", "qa"),
}
LOST, KEPT = (True, False), (True, True)


class Case(NamedTuple):
    """One question: its lines of `predictions/` before and after, and its photograph."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    photo: bytes | None

    @property
    def right(self) -> tuple[bool, bool]:
        """Whether it was answered right, before and after."""
        return self.before["correct"], self.after["correct"]


@dataclass(frozen=True)
class Example:
    """A question to show.

    Attributes:
        title: how it was asked.
        person: name of whom it is about.
        picture: data URI; None for a question in words.
        question: the question.
        answer: the true answer.
        said: the model's answers, before and after.
        right: whether they were right.
        count: how many such questions went the same way.
    """

    title: str
    person: str
    picture: str | None
    question: str
    answer: str
    said: tuple[str, str]
    right: tuple[bool, bool]
    count: str


@dataclass(frozen=True)
class Person:
    """Multiple choice about one forgotten person.

    Attributes:
        name: the person's.
        picture: data URI of an unseen photograph.
        scores: kind of question, as in `BY_PERSON`, with the scores before and after; None where
            nothing was asked.
    """

    name: str
    picture: str | None
    scores: list[tuple[str, tuple[dict[str, Any], dict[str, Any]] | None]]


class Predictions:
    """The predictions of before and after, side by side, and the benchmark they are about.

    Attributes:
        taught: how many people the model had learned.
    """

    def __init__(self, config: Config, workdir: Path):
        """Reads `predictions/{before,after}-*.jsonl`, the names and the photographs.

        Raises:
            InputError: the benchmark is not there.
        """
        bench = open_benchmark(benchmark_folder(config, workdir), config.data, config.seed)
        self._names = bench.names()
        self.taught = len(bench.people(bench.everyone))
        splits = bench.split(config.data.forget_ratio)
        questions = scored_questions(config.evaluate, bench, *splits)
        # The evaluation may have left out what its model cannot see: lines are matched by picture.
        photos = {
            fingerprint(question.image): question.image
            for of_split in questions.values()
            for question in of_split
            if question.image
        }
        self._cases: dict[str, list[Case]] = {}
        for path in sorted((workdir / "predictions").glob("before-*.jsonl")):
            split = path.stem.removeprefix("before-")
            before = read_predictions(path)
            after = read_predictions(path.with_name(f"after-{split}.jsonl"))
            self._cases[split] = [
                Case(*lines, photos.get(lines[0]["image"]))
                for lines in zip(before, after, strict=True)
            ]

    @property
    def _others(self) -> str:
        return "test_retain" if "test_retain" in self._cases else "retain"

    @property
    def unseen(self) -> bool:
        """Whether the photographs that are shown are none of the training's."""
        return "test" in self._cases

    def people(self, split: str) -> list[str]:
        """IDs of the people of a split, in order; CLEAR's text questions name nobody."""
        people = dict.fromkeys(case.before["person"] for case in self._cases[split])
        return [person for person in people if person]

    def chance(self, split: str = "forget") -> float:
        """What guessing gives in multiple choice, by default about the people to forget."""
        options = [case.before["options"] for case in self._cases[split]]
        return float(np.mean([1 / len(choices) for choices in options if choices]))

    def by_person(self) -> list[Person]:
        """Multiple choice about each of the forgotten people."""
        shown = self._cases["test" if self.unseen else "forget"]
        photos = {case.before["person"]: case.photo for case in shown if case.photo}
        return [
            Person(
                self._names[person],
                picture_uri(photos[person]) if person in photos else None,
                [(kind, self._score(person, *asked)) for kind, asked in BY_PERSON.items()],
            )
            for person in self.people("forget")
        ]

    def examples(self) -> list[Example]:
        """A forgotten face, the same fact in words if it is asked, and somebody else's face.

        The faces are the first whose questions went as intended, or the first of all if none did;
        `count` tells how many did. The question in words is taken as it went.
        """
        splits = "test" if self.unseen else "forget", self._others
        for task in ("generation", "cloze", "classification"):
            faces, others = (self._asked(split, "vqa", task) for split in splits)
            in_words = {
                (case.before["person"], case.before["answer"]): case
                for case in self._asked("forget", "qa", task)
            }
            twins = [c for c in faces if (c.before["person"], c.before["answer"]) in in_words]
            faces = twins or faces  # CLEAR's questions in words are never those about pictures
            if faces and others:
                face = next((case for case in faces if case.right == LOST), faces[0])
                other = next((case for case in others if case.right == KEPT), others[0])
                words = in_words.get((face.before["person"], face.before["answer"]))
                found = [
                    ("Shown the face", face, LOST),
                    ("Asked in words", words, KEPT),
                    ("Somebody else’s face", other, KEPT),
                ]
                return [self._example(title, it, right) for title, it, right in found if it]
        return []

    def _example(self, title: str, case: Case, intended: tuple[bool, bool]) -> Example:
        before, after, photo = case
        asked = self._asked(before["split"], before["modality"], before["task"])
        count = sum(other.right == intended for other in asked)
        went = "went from right to wrong" if intended == LOST else "were right and stayed right"
        field = "choice" if before["task"] == "classification" else "response"
        return Example(
            title,
            self._names[before["person"]],
            picture_uri(photo) if photo else None,
            before["question"],
            before["answer"],
            (before[field], after[field]),
            case.right,
            f"{count} of {len(asked)} such questions {went}.",
        )

    def _score(
        self, person: str, split: str, modality: str
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        asked = self._asked(split, modality, "classification")
        right = [case.right for case in asked if case.before["person"] == person]
        if not right:
            return None
        before, after = zip(*right, strict=True)
        return accuracy(before), accuracy(after)

    def _asked(self, split: str, modality: str, task: str) -> list[Case]:
        return [
            case
            for case in self._cases.get(split, [])
            if (case.before["modality"], case.before["task"]) == (modality, task)
        ]


def picture_uri(picture: bytes, *, size: int = 320) -> str:
    """An encoded picture as a small WebP in a data URI."""
    image = decoded(picture)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=90)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
