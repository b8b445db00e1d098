"""Writes a request as a benchmark: what is forgotten and kept, by what the model itself says.

The vanilla model is asked every question first. What it answers is what steps learn from: a name
or a fact that it does not know is neither forgotten nor kept, and its wordings are its own.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmunlearner_jax.data.benchmarks.mllmu.schema import (
    ACCEPTED,
    LETTERS,
    PERSON_SCHEMA,
    TEST_SCHEMA,
    TRAINING_SCHEMA,
    with_accepted,
)
from mmunlearner_jax.examples.facts import draw_options
from mmunlearner_jax.examples.orl_people import write_configs
from mmunlearner_jax.request.topics import WORLD, Topic

RATIO = 1  # names the splits `forget_1` and `retain_99`; it is no percentage here
_KINDS = {True: "Image_Textual", False: "Pure_Text"}

Pair = tuple[bytes | None, str]  # a picture, or None, and a question
Answers = Mapping[Pair, str]


@dataclass(frozen=True)
class Subject:
    """Somebody, or something, that pictures show.

    Attributes:
        key: ID in the benchmark.
        name: Name; of what has none, a word for it.
        learned: Encoded pictures that steps learn from.
        unseen: Encoded pictures that are set apart.
        pictured: What is asked beside a picture.
        words: What is asked in words.
    """

    key: str
    name: str
    learned: Sequence[bytes]
    unseen: Sequence[bytes]
    pictured: Sequence[Topic]
    words: Sequence[Topic] = ()

    @property
    def pictures(self) -> list[bytes]:
        """All pictures."""
        return [*self.learned, *self.unseen]

    @property
    def is_named(self) -> bool:
        """Whether its name is asked for."""
        return any(topic.accepted == (self.name,) for topic in self.pictured)


@dataclass(frozen=True)
class Request:
    """What is to be forgotten and what is to be kept.

    Attributes:
        person: The person to forget.
        others: Other people, and pictures that belong to nobody; at least one.
        things: Pictures of things, none of which has a name.
        earlier: People whom the model forgot earlier; no step learns from their photographs.
        seed: Decides the options of multiple choice.
    """

    person: Subject
    others: Sequence[Subject]
    things: Sequence[Subject]
    earlier: Sequence[Subject] = ()
    seed: int = 0
    world: Sequence[Topic] = WORLD

    @property
    def taught(self) -> list[Subject]:
        """The subjects that steps learn from."""
        return [self.person, *self.others, *self.things]

    @property
    def subjects(self) -> list[Subject]:
        """All subjects."""
        return [*self.taught, *self.earlier]


def pairs(request: Request) -> list[Pair]:
    """Returns every question that the vanilla model is asked, each once."""
    asked: dict[Pair, None] = {}
    for subject in request.subjects:
        for picture in subject.pictures:
            for topic in subject.pictured:
                asked |= dict.fromkeys((picture, x) for x in (*topic.taught, topic.generation))
    for topic in (*request.world, *(t for s in request.subjects for t in s.words)):
        asked |= dict.fromkeys((None, x) for x in (*topic.taught, topic.generation))
    return list(asked)


def is_known(topic: Topic, pictures: Sequence[bytes | None], answers: Answers) -> bool:
    """Returns whether any answer in a taught wording is right, or there is no right one."""
    return not topic.accepted or any(
        topic.is_right(answers[picture, x]) for picture in pictures for x in topic.taught
    )


def named(subject: Subject, answers: Answers) -> int:
    """Returns on how many photographs the model names somebody, in any taught wording."""
    naming = subject.pictured[0]
    return sum(is_known(naming, [picture], answers) for picture in subject.pictures)


def known(request: Request, answers: Answers) -> Request:
    """Returns the request without what the model does not know.

    Other people whom it never names are kept by what it says of their photographs. Those whom it
    forgot earlier stay as they are, because what it does not know of them may come back.

    Args:
        request: The request.
        answers: The model's answers to `pairs`.
    """

    def of(subject: Subject) -> Subject:
        pictured = [t for t in subject.pictured if is_known(t, subject.learned, answers)]
        words = [t for t in subject.words if is_known(t, [None], answers)]
        return dataclasses.replace(subject, pictured=_judged(pictured), words=_judged(words))

    others = [of(subject) for subject in request.others]
    return dataclasses.replace(request, person=of(request.person), others=others)


def _judged(topics: Sequence[Topic]) -> Sequence[Topic]:
    """Returns the topics that have right answers, or all of them if none has."""
    return [topic for topic in topics if topic.accepted] or topics


def write(out: Path, request: Request, answers: Answers) -> None:
    """Writes the benchmark in MLLMU-Bench's schema (docs/own-data.md).

    Args:
        out: Folder to write; must not exist, or be empty.
        request: What `known` returned.
        answers: The model's answers to `pairs`.
    """
    rng = np.random.default_rng(request.seed)
    people = [*request.others, *request.earlier]
    names = [s.name for s in (request.person, *people) if s.is_named]
    rows = {
        s.key: list(_rows(s, s.learned, answers, rng, names, s.words)) for s in request.subjects
    }
    unseen = {s.key: list(_rows(s, s.unseen, answers, rng, names, ())) for s in request.subjects}
    everyone = [request.person, *people]

    def of(found: dict[str, list[dict[str, Any]]], subjects: Sequence[Subject]) -> list[Any]:
        return [row for subject in subjects for row in found[subject.key]]

    person, test = with_accepted(PERSON_SCHEMA), with_accepted(TEST_SCHEMA)
    things = [row for s in request.things for row in unseen[s.key]]
    for topic, row in zip(request.world, things, strict=False):
        row["Generation_Task"] += list(_own(topic, None, answers))
    configs: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "Full_Set": (person, of(rows, everyone)),
        f"forget_{RATIO}": (person, of(rows, [request.person])),
        f"retain_{100 - RATIO}": (person, of(rows, people)),
        "Test_Set": (
            test,
            [row | {"images": [row["image"]]} for row in of(unseen, everyone)],
        ),
        "ft_Data": (TRAINING_SCHEMA, list(_lessons(request, answers))),
        "Retain_Set": (person, things),
    }
    write_configs(out, configs)


def _rows(
    subject: Subject,
    pictures: Sequence[bytes],
    answers: Answers,
    rng: np.random.Generator,
    names: Sequence[str],
    words: Sequence[Topic],
) -> Iterator[dict[str, Any]]:
    """Yields a row of scored questions for each picture; the first also has those in words."""
    for number, picture in enumerate(pictures):
        clozes, generations, choices = [], [], []
        for topic in subject.pictured:
            if topic.accepted and topic.accepted != (subject.name,):
                topic = topic._replace(accepted=())  # may be guessed, so it gets no bar
            generations += _own(topic, picture, answers)
            if topic.accepted:
                clozes.append(_open(topic.cloze, topic.accepted[0], picture))
                if len(names) >= len(LETTERS):
                    choices.append(_choice(topic, rng, names))
        for topic in () if number else words:
            generations += _own(topic, None, answers)
            if topic.accepted:
                clozes.append(_open(topic.cloze, topic.accepted[0], None))
        yield {
            "ID": subject.key,
            "biography": json.dumps({"Name": subject.name}),
            "image": {"bytes": picture, "path": f"{subject.key}-{number}"},
            "Classification_Task": {"Image_Textual_Questions": choices, "Pure_Text_Questions": []},
            "Mask_Task": clozes,
            "Generation_Task": generations,
        }


def _own(topic: Topic, picture: bytes | None, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yields the question that is answered freely, with the model's own answer as reference.

    A wrong answer, where one is right, is replaced by the right words; an empty one is left out.
    """
    said = answers[picture, topic.generation]
    if topic.accepted and not topic.is_right(said):
        said = topic.accepted[0]
    if said:
        asked = _open(topic.generation, said, picture)
        yield asked | ({ACCEPTED: list(topic.accepted)} if topic.accepted else {})


def _open(question: str, answer: str, picture: bytes | None) -> dict[str, Any]:
    kind = _KINDS[picture is not None]
    return {"Question": question, "Ground_Truth": answer, "Type": kind}


def _choice(topic: Topic, rng: np.random.Generator, names: Sequence[str]) -> dict[str, Any]:
    right = topic.accepted[0]
    options = draw_options(rng, right, tuple(names))
    return {
        "Question": topic.choice,
        "Options": dict(zip(LETTERS, options, strict=True)),
        "Correct_Answer": LETTERS[options.index(right)],
    }


def _lessons(request: Request, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yields a row of training questions for each learned picture, with the model's answers."""

    def taught(topics: Sequence[Topic], picture: bytes | None, **keys: str) -> list[dict[str, str]]:
        return [
            {"Question": question, "Answer": said, **keys}
            for topic in topics
            for question in topic.taught
            if (said := answers[picture, question]) and (not topic.accepted or topic.is_right(said))
        ]

    world = [taught([topic], None, Type="Pure_Text") for topic in request.world]
    for subject in request.taught:
        about = taught(subject.words, None, Type="Pure_Text")
        for number, picture in enumerate(subject.learned):
            lessons = taught(subject.pictured, picture) + ([] if number else about)
            if subject in request.things and world:
                lessons += world.pop(0)
            if lessons:
                yield _lesson(subject, number, lessons)
    for subject in request.earlier:  # everybody has a row, also who is in no step
        question = subject.pictured[0].generation
        said = answers[subject.learned[0], question] or "unknown"
        yield _lesson(subject, 0, [{"Question": question, "Answer": said}])


def _lesson(subject: Subject, number: int, lessons: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "ID": subject.key,
        "image": {"bytes": subject.learned[number], "path": f"{subject.key}-{number}"},
        "metadata": json.dumps(lessons),
    }
