"""What the models of a cell answer about one forgotten person, beside an unseen photograph."""

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
    """One question and what every model but the controls said.

    Attributes:
        title: How it was asked.
        question: The question.
        answer: The true answer.
        said: The answers, by what a page calls the variants, the model before first.
    """

    title: str
    question: str
    answer: str
    said: dict[str, str]


class Person(NamedTuple):
    """A forgotten person.

    Attributes:
        name: The person's.
        seed: Of the cell.
        picture: Data URI of the photograph that the first question is about.
        questions: With a photograph, and in words.
    """

    name: str
    seed: int
    picture: str
    questions: list[Asking]


def forgotten_person(cells: Sequence[Cell]) -> Person | None:
    """The first forgotten person of the first cell, and the first open questions about them.

    Args:
        cells: Of one forget ratio, of which the first with a model that forgot nothing is taken.

    Returns:
        None where no model that forgot nothing was asked open questions about unseen photographs.

    Raises:
        InputError: The benchmark is not there, or has not the photograph.
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
            f"{folder}: has not the photograph of {person} that {cell.folder} was asked about;"
            " set data.benchmark of its config.json to the benchmark of that run"
        )
    wanted = (("With the photograph", "test", "vqa"), ("In words", "forget", "qa"))
    found = [_asking(cell, title, split, modality, person) for title, split, modality in wanted]
    name = bench.names()[person]
    return Person(name, cell.seed, picture_uri(photo), [asking for asking in found if asking])


def _open(line: Mapping[str, Any], modality: str) -> bool:
    return line["task"] == "generation" and line["modality"] == modality


def _asking(cell: Cell, title: str, split: str, modality: str, person: str) -> Asking | None:
    said, first = {}, None
    for variant in names([cell]):
        if cell.variants[variant].get("control") or split not in cell.splits(variant):
            continue
        for line in cell.lines(variant, split):  # the same questions in the same order for all
            if _open(line, modality) and line["person"] == person:
                first = first or line
                said[label(variant)] = line["response"]
                break
    return Asking(title, first["question"], first["answer"], said) if first else None
