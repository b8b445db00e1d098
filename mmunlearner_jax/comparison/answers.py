"""Answers of a cell's models about one forgotten person, with an unseen photograph."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmunlearner_jax.comparison.cells import VANILLA, Cell, label, names
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.reporting.cases import picture_uri
from mmunlearner_jax.session import benchmark_folder


class Asking(NamedTuple):
    """One question and the answers of all models except the controls.

    Attributes:
        title: How the question was asked.
        question: Text of the question.
        answer: The true answer.
        responses: The models' answers by label of the variant, the vanilla model's first.
    """

    title: str
    question: str
    answer: str
    responses: dict[str, str]


class Person(NamedTuple):
    """A forgotten person.

    Attributes:
        name: Name of the person.
        seed: Seed of the cell.
        picture: Data URI of the first question's photograph.
        questions: One question with the photograph and one in words, if there are any.
    """

    name: str
    seed: int
    picture: str
    questions: list[Asking]


def forgotten_person(cells: Sequence[Cell]) -> Person | None:
    """Returns a cell's first forgotten person and the first open questions about them.

    Args:
        cells: Cells of one forget ratio; the first that has a vanilla model is used.

    Returns:
        None if that model was asked no open question about unseen photographs, or if no cell has a
        vanilla model.

    Raises:
        InputError: The benchmark is missing, or lacks the photograph.
    """
    cell = next((cell for cell in cells if VANILLA in cell.variants), None)
    if cell is None or "test" not in cell.splits(VANILLA):
        return None
    faces = cell.lines(VANILLA, "test")
    face = next((line for line in faces if _open(line, "vqa")), None)
    if face is None:
        return None
    person = face["person"]
    config = cell.typed_config
    folder = benchmark_folder(config, cell.folder)
    bench = open_benchmark(folder, config.data, cell.seed)
    unseen = scored_questions(config.evaluate, bench, *bench.split(cell.ratio))["test"]
    photos = [q.image for q in unseen if q.image]
    photo = next((p for p in photos if fingerprint(p) == face["image"]), None)
    if photo is None:
        raise InputError(
            f"{folder}: lacks the photograph of {person} in the questions of {cell.folder};"
            " set data.benchmark of its config.json to the benchmark of that run"
        )
    wanted = (("With the photograph", "test", "vqa"), ("In words", "forget", "qa"))
    askings = [_asking(cell, title, split, modality, person) for title, split, modality in wanted]
    name = bench.names()[person]
    return Person(name, cell.seed, picture_uri(photo), [asking for asking in askings if asking])


def _open(line: Mapping[str, Any], modality: str) -> bool:
    return line["task"] == "generation" and line["modality"] == modality


def _asking(cell: Cell, title: str, split: str, modality: str, person: str) -> Asking | None:
    answers, first = {}, None
    for variant in names([cell]):
        if cell.variants[variant].get("control") or split not in cell.splits(variant):
            continue
        for line in cell.lines(variant, split):  # all variants have the same questions and order
            if _open(line, modality) and line["person"] == person:
                first = first or line
                answers[label(variant)] = line["response"]
                break
    return Asking(title, first["question"], first["answer"], answers) if first else None
