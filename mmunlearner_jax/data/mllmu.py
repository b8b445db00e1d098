"""Reads any directory in MLLMU-Bench's parquet schema: the published files or the ORL benchmark.

A config ("forget_10") is a folder of parquet files, read by column name. What is trained on comes
from `ft_Data` joined on `ID`, because the published forget and retain configs carry no training
questions (defect D-21).
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from mmunlearner_jax.data.parquet import (
    Check,
    ParquetBench,
    ParquetRow,
    Problem,
    See,
    clean,
    is_utf8,
    no_check,
)
from mmunlearner_jax.data.samples import Modality, Question, Sample, Task
from mmunlearner_jax.data.schemas import LETTERS, mllmu_schema
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import parse_json

_MODALITIES: dict[str, Modality] = {"Image_Textual": "vqa", "Pure_Text": "qa"}
_OPEN_TASKS: dict[str, Task] = {"Mask_Task": "cloze", "Generation_Task": "generation"}


class MLLMUBench(ParquetBench):
    """A benchmark directory.

    A record that cannot be used (undecodable image, question without answer, right option not among
    the options, bad JSON) is named in the log and left out, but more than `max_bad_fraction` of
    what a call reads is an error. Images are decoded once here, so that this shows at once.

    Args:
        root: Folder that holds the config folders.
        seed: Decides which photographs of a person are taken where not all are (the published
            code draws them unseeded, defect D-22).
        text_source: Where `text_training` finds its samples. "ft_Data": elements of `metadata` with
            `"Type": "Pure_Text"` (the ORL benchmark). "Full_Set": its scored text questions,
            answered with the text of the right option, as the published code trains.
        max_bad_fraction: Fraction of unusable records that is tolerated.
        check: See `ParquetBench`.

    Raises:
        InputError: `root` is not a folder with configs in it, or `text_source` neither of the two.
    """

    taught = "ft_Data"
    everyone = "Full_Set"
    person_column = "ID"
    schema = staticmethod(mllmu_schema)

    def __init__(
        self,
        root: str | Path,
        *,
        seed: int = 0,
        text_source: Literal["ft_Data", "Full_Set"] = "ft_Data",
        max_bad_fraction: float = 0.0,
        check: Check = no_check,
    ):
        if text_source not in ("ft_Data", "Full_Set"):
            raise InputError(f"text_source: {text_source!r} is neither ft_Data nor Full_Set")
        super().__init__(root, seed=seed, max_bad_fraction=max_bad_fraction, check=check)
        self.text_source = text_source

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, checked.

        Args:
            ratio: Percentage of the people to forget.

        Raises:
            InputError: The benchmark has no such ratio, nobody is to be forgotten or kept, or
                somebody is in both, or never taught.
        """
        forget, retain = f"forget_{ratio}", f"retain_{100 - ratio}"
        self._check_apart(forget, retain)
        for config in (forget, retain):
            self._check_within("Full_Set", config)
        return forget, retain

    def names(self) -> dict[str, str]:
        """Returns what everybody of `Full_Set` is called, by ID: the `Name` of the biography.

        Raises:
            InputError: A biography is not JSON, or without a name.
        """
        found = {}
        for row in self._rows("Full_Set", "ID", "biography"):
            biography = _read_json(row["biography"])
            name = clean(biography.get("Name")) if isinstance(biography, dict) else ""
            if not (name and is_utf8(name)):
                said = f"ID {row['ID']}: biography is no JSON object with a Name; write one"
                raise InputError(row.problem(said))
            found[row["ID"]] = name
        return found

    def training(
        self,
        config: str,
        people: Collection[str] | None = None,
        *,
        photos_per_person: int | None = None,
    ) -> list[Sample]:
        """Returns the picture questions that `ft_Data` teaches about the people of a config.

        Args:
            config: Whose people; "ft_Data" for all that is taught.
            people: Only these of them.
            photos_per_person: At most so many photographs of each, drawn by the seed.

        Raises:
            InputError: A file, column or record is missing or unusable, or a person of the config
                has no row in `ft_Data`.
        """
        rows = self._taught_rows(config, people)
        views = self._draw(((row["ID"], row) for row in rows), photos_per_person)
        return self._sift(record for row in views for record in _picture_lessons(self.picture, row))

    def text_training(self, config: str, people: Collection[str] | None = None) -> list[Sample]:
        """Returns the text questions that are taught about the people of a config.

        Args:
            config: Whose people; "ft_Data" for all that is taught.
            people: Only these of them.

        Raises:
            InputError: As for `training`, or `text_source` holds no text question about them.
        """
        if self.text_source == "Full_Set":
            wanted = set(self.people(config) if people is None else people)
            samples = [
                Sample(question.person, None, question.question, question.answer)
                for question in self.questions("Full_Set", wanted)
                if (question.modality, question.task) == ("qa", "classification")
            ]
        else:
            rows = self._taught_rows(config, people)
            records = (record for row in rows for record in _lessons(row, None))
            samples = list(dict.fromkeys(self._sift(records)))
        if not samples:
            raise InputError(
                f"{self.root / self.text_source}: no text question about the people of {config}; "
                "choose the other text_source (ft_Data or Full_Set)"
            )
        return samples

    def questions(
        self,
        config: str,
        people: Collection[str] | None = None,
        *,
        photos_per_person: int | None = None,
    ) -> list[Question]:
        """Returns the scored questions of a config.

        Picture questions are asked of every photograph taken, text questions once a person.

        Args:
            config: "forget_10", "Test_Set", "Retain_Set" ...
            people: Only these of them.
            photos_per_person: At most so many photographs of each, drawn by the seed. 1 on
                `Test_Set` is the published protocol.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        several = config == "Test_Set"
        column = "images" if several else "image"
        rows = _only(self._rows(config, column, "ID", "Classification_Task", *_OPEN_TASKS), people)
        views = [
            (row["ID"], (row, image, f"images[{number}]" if several else "image"))
            for row in rows
            for number, image in enumerate(row[column] or [None] if several else [row[column]])
        ]
        return self._sift(_once(self.picture, self._draw(views, photos_per_person)))

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, test, retain, test_retain, realworld.

        `test*` ask about the photographs of `Test_Set`, that no stage trains on. Where their text
        questions are all those of `forget` and `retain` again, these are not asked twice.

        Args:
            forget: Config of the people to forget.
            retain: Config of the others.
            photos_per_person: At most so many photographs of each of the others, and so many
                unseen ones of everybody (published: one, at random).

        Raises:
            InputError: As for `questions`.
        """

        def unseen(config: str, seen: list[Question]) -> list[Question]:
            self._check_within("Test_Set", config)
            asked = self.questions(
                "Test_Set", people=self.people(config), photos_per_person=photos_per_person
            )
            twins = set(seen).issuperset(q for q in asked if q.modality == "qa")
            return [q for q in asked if q.modality == "vqa"] if twins else asked

        forgotten = self.questions(forget)
        kept = self.questions(retain, photos_per_person=photos_per_person)
        return {
            "forget": forgotten,
            "test": unseen(forget, forgotten),
            "retain": kept,
            "test_retain": unseen(retain, kept),
            "realworld": self.questions("Retain_Set"),
        }

    def _taught_rows(self, config: str, people: Collection[str] | None) -> list[ParquetRow]:
        self._check_within(self.taught, config)
        wanted = set(self.people(config) if people is None else people)
        return _only(
            self._rows("ft_Data", "image", "ID", "metadata"), wanted & set(self.people(config))
        )


def _only(rows: list[ParquetRow], people: Collection[str] | None) -> list[ParquetRow]:
    if people is None:
        return rows
    wanted = set(people)
    return [row for row in rows if row["ID"] in wanted]


def _objects(items: list[Any] | None) -> list[Any]:
    """Returns the questions of a column; a null among them is one that says nothing."""
    return [item or {} for item in items or []]


def _read_json(text: str | None) -> Any:
    """Returns what the text holds; None where it is not JSON."""
    try:
        return parse_json(text or "")
    except ValueError:
        return None


def _picture_lessons(see: See, row: ParquetRow) -> Iterator[Sample | Problem]:
    encoded, problem = see(row, row["image"], "image")
    if problem:
        yield problem
    else:
        yield from _lessons(row, encoded)


def _lessons(row: ParquetRow, image: bytes | None) -> Iterator[Sample | Problem]:
    """Yields the picture questions of a row of `ft_Data`; without an image, the text questions."""
    pairs = _read_json(row["metadata"])
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
                f"ID {row['ID']}: metadata: question {question!r} with answer {answer!r}"
            )


View = tuple[ParquetRow, dict[str, Any] | None, str]


def _once(see: See, views: Iterable[View]) -> Iterator[Question | Problem]:
    """Yields all questions of some photographs, but a text question for the first of them alone.

    It repeats in every row of a person who has several photographs; what a row asks twice is asked
    twice, as published.
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
    if not any(row[task] for task in ("Classification_Task", *_OPEN_TASKS)):
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
            given = {
                key: text for key, text in (item.get("Options") or {}).items() if text is not None
            }
            options = {key: clean(given[key]) for key in sorted(given)}
            letters = "".join(options)
            if letters != LETTERS[: len(letters)] or not all(options.values()):
                yield row.problem(
                    f"ID {person}: Classification_Task.{column}: question {question!r}: Options "
                    f"{given} must be A, B, ... without a gap, none empty"
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
    for column, task in _OPEN_TASKS.items():
        for item in _objects(row[column]):
            modality = _MODALITIES.get(item.get("Type"))
            question, answer = clean(item.get("Question")), clean(item.get("Ground_Truth"))
            if modality is None:
                kinds = ", ".join(_MODALITIES)
                yield row.problem(
                    f"ID {person}: {column}: Type {item.get('Type')!r} is none of {kinds}"
                )
            elif question and answer:
                yield Question(person, modality, task, images[modality], question, answer)
            else:
                yield row.problem(
                    f"ID {person}: {column}: question {question!r} with Ground_Truth {answer!r}"
                )
