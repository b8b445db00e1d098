"""Parsing of MLLMU-Bench's rows into samples, scored questions or problems."""

from collections.abc import Iterable, Iterator
from typing import Any

from mmunlearner_jax.data.benchmarks.mllmu.schema import ACCEPTED, LETTERS
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, Problem, See, clean, is_utf8
from mmunlearner_jax.data.samples import Modality, Question, Sample, Task
from mmunlearner_jax.errors import shown
from mmunlearner_jax.files import parse_json

_MODALITIES: dict[str, Modality] = {"Image_Textual": "vqa", "Pure_Text": "qa"}
OPEN_TASKS: dict[str, Task] = {"Mask_Task": "cloze", "Generation_Task": "generation"}


def _objects(items: list[Any] | None) -> list[Any]:
    """Returns the questions of a column; a null becomes an empty question."""
    return [item or {} for item in items or []]


def read_json(text: str | None) -> Any:
    """Returns the value of a JSON text; None if it is not JSON."""
    try:
        return parse_json(text or "")
    except ValueError:
        return None


def picture_lessons(see: See, row: ParquetRow) -> Iterator[Sample | Problem]:
    """Yields the picture questions of a row of `ft_Data`."""
    encoded, problem = see(row, row["image"], "image")
    if problem:
        yield problem
    else:
        yield from lessons(row, encoded)


def lessons(row: ParquetRow, image: bytes | None) -> Iterator[Sample | Problem]:
    """Yields the picture questions of a row of `ft_Data`, or its text questions if no image."""
    pairs = read_json(row["metadata"])
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        yield row.problem(f"ID {row['ID']}: metadata is no JSON list of objects")
        return
    if not pairs:
        yield row.problem(f"ID {row['ID']}: metadata holds no question")
    for pair in pairs:
        if (pair.get("Type") == "Pure_Text") != (image is None):
            continue
        question, answer = clean(pair.get("Question")), clean(pair.get("Answer"))
        if not is_utf8(question + answer):
            yield row.problem(
                f"ID {row['ID']}: metadata: half of a surrogate pair in question {question!r} with"
                f" answer {answer!r}"
            )
        elif question and answer:
            yield Sample(row["ID"], image, question, answer)
        else:
            yield row.problem(
                f"ID {row['ID']}: metadata: question {question!r} with answer {answer!r}:"
                " one is empty"
            )


View = tuple[ParquetRow, dict[str, Any] | None, str]


def questions_once(see: See, views: Iterable[View]) -> Iterator[Question | Problem]:
    """Yields all questions of some photographs, but each text question for the first one alone.

    A text question is repeated in every row of a person with several photographs. A question that
    a row holds twice is asked twice, as published.
    """
    first: dict[Question, int] = {}
    for number, view in enumerate(views):
        for record in _questions(see, *view):
            if isinstance(record, Question) and record.modality == "qa":
                if first.setdefault(record, number) != number:
                    continue
            yield record


def _questions(
    see: See, row: ParquetRow, image: dict[str, Any] | None, column: str
) -> Iterator[Question | Problem]:
    person = row["ID"]
    if not any(row[task] for task in ("Classification_Task", *OPEN_TASKS)):
        yield row.problem(f"ID {person}: Classification_Task, Mask_Task, Generation_Task are empty")
        return
    encoded, problem = see(row, image, column)
    if problem:
        yield problem
        return
    images: dict[Modality, bytes | None] = {"vqa": encoded, "qa": None}
    for kind, modality in _MODALITIES.items():
        column = f"{kind}_Questions"
        for item in _objects((row["Classification_Task"] or {}).get(column)):
            question, letter = clean(item.get("Question")), item.get("Correct_Answer")
            texts = {
                key: text for key, text in (item.get("Options") or {}).items() if text is not None
            }
            options = {key: clean(texts[key]) for key in sorted(texts)}
            letters = "".join(options)
            if letters != LETTERS[: len(letters)] or not all(options.values()):
                yield row.problem(
                    f"ID {person}: Classification_Task.{column}: question {question!r}: Options "
                    f"{texts} must be A, B, ... without a gap, none empty"
                )
            elif question and letter in options:
                yield Question(
                    person,
                    modality,
                    "classification",
                    images[modality],
                    question,
                    options[letter],
                    tuple(options.values()),
                    letter,
                )
            else:
                yield row.problem(
                    f"ID {person}: Classification_Task.{column}: question {question!r}: "
                    f"Correct_Answer {letter!r} must be among the options {', '.join(options)}"
                )
    for column, task in OPEN_TASKS.items():
        for item in _objects(row[column]):
            yield _open_question(row, item, column, task, images)


def _open_question(
    row: ParquetRow,
    item: dict[str, Any],
    column: str,
    task: Task,
    images: dict[Modality, bytes | None],
) -> Question | Problem:
    place, modality = f"ID {row['ID']}: {column}", _MODALITIES.get(str(item.get("Type")))
    question, answer = clean(item.get("Question")), clean(item.get("Ground_Truth"))
    if modality is None:
        kinds = ", ".join(_MODALITIES)
        return row.problem(f"{place}: Type {item.get('Type')!r} is none of {kinds}")
    if not (question and answer):
        pair = f"question {question!r} with Ground_Truth {answer!r}"
        return row.problem(f"{place}: {pair}: one is empty")
    accepted = item.get(ACCEPTED) or []
    if not isinstance(accepted, list) or not all(isinstance(x, str) and clean(x) for x in accepted):
        wrong = f"question {question!r}: {ACCEPTED} {shown(accepted)}"
        return row.problem(f"{place}: {wrong} must be a list of texts, none empty")
    return Question(
        row["ID"],
        modality,
        task,
        images[modality],
        question,
        answer,
        accepted=tuple(map(clean, accepted)),
    )
