"""Reader of any directory in MLLMU-Bench's parquet schema: the published files or the ORL faces.

A config ("forget_10") is a folder of parquet files, read by column name. Samples come from
`ft_Data`, joined on `ID`, because the published forget and retain configs have no training
questions (D-21: the published training reads a column that the released files lack).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from mmunlearner_jax.data.benchmarks.base import Check, no_check
from mmunlearner_jax.data.benchmarks.mllmu.records import (
    OPEN_TASKS,
    lessons,
    picture_lessons,
    questions_once,
    read_json,
)
from mmunlearner_jax.data.benchmarks.parquet import ParquetBench, ParquetRow, clean, is_utf8
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError


class MLLMUBench(ParquetBench):
    """A reader of MLLMU-Bench.

    An unusable record (undecodable image, question without answer, right option not among the
    options, bad JSON) is named in the log and left out. If more than `max_bad_fraction` of the
    records of a call are unusable, the call raises. Every image is decoded once on reading, so
    that a damaged one is noticed there.

    Args:
        root: Folder that holds the config folders.
        seed: Seed of the choice of photographs where not all are used (D-22: the published code
            has no seed).
        text_source: Source of the samples of `text_training`. "ft_Data": elements of `metadata`
            with `"Type": "Pure_Text"` (the ORL benchmark). "Full_Set": its scored text questions,
            with the text of the right option as the answer, as the published code trains.
        max_bad_fraction: Tolerated fraction of unusable records in each call.
        check: See `ParquetBench`.

    Raises:
        InputError: `root` is not a folder that holds configs, or `text_source` is unknown.
    """

    taught = "ft_Data"
    everyone = "Full_Set"
    person_column = "ID"

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
        """Returns the names of the forget and the retain config of a ratio, after checks.

        Args:
            ratio: Percentage of the people to forget.

        Raises:
            InputError: The benchmark has no such ratio, one of the configs is empty, a person is in
                both, or a person is never taught.
        """
        forget, retain = f"forget_{ratio}", f"retain_{100 - ratio}"
        self._check_apart(forget, retain)
        for config in (forget, retain):
            self._check_within("Full_Set", config)
        return forget, retain

    def names(self) -> dict[str, str]:
        """Returns the names of all people of `Full_Set`, by ID: the `Name` of the biography.

        Raises:
            InputError: A biography is not JSON or has no name.
        """
        names = {}
        for row in self._rows("Full_Set", "ID", "biography"):
            biography = read_json(row["biography"])
            name = clean(biography.get("Name")) if isinstance(biography, dict) else ""
            if not (name and is_utf8(name)):
                problem = f"ID {row['ID']}: biography is no JSON object with a Name; write one"
                raise InputError(row.problem(problem))
            names[row["ID"]] = name
        return names

    def training(
        self,
        config: str,
        people: Collection[str] | None = None,
        *,
        photos_per_person: int | None = None,
    ) -> list[Sample]:
        """Returns the picture questions of `ft_Data` about the people of a config.

        Args:
            config: Config whose people the questions are about; "ft_Data" for all of them.
            people: IDs; the questions about other people are left out. None: all people.
            photos_per_person: Most photographs of a person, drawn by the seed; None: all.

        Raises:
            InputError: A file, column or record is missing or unusable, or a person of the config
                has no row in `ft_Data`.
        """
        rows = self._taught_rows(config, people)
        views = self._draw(((row["ID"], row) for row in rows), photos_per_person)
        return self._sift(record for row in views for record in picture_lessons(self.picture, row))

    def text_training(self, config: str, people: Collection[str] | None = None) -> list[Sample]:
        """Returns the text questions that are taught about the people of a config.

        Args:
            config: Config whose people the questions are about; "ft_Data" for all of them.
            people: IDs; the questions about other people are left out. None: all people.

        Raises:
            InputError: As for `training`, or `text_source` has no text question about the people.
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
            records = (record for row in rows for record in lessons(row, None))
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

        Each picture question is asked once per photograph, each text question once per person.

        Args:
            config: Name of the config: "forget_10", "Test_Set", "Retain_Set" ...
            people: IDs; the questions about other people are left out. None: all people.
            photos_per_person: Most photographs of a person, drawn by the seed; None: all. 1 on
                `Test_Set` is the published protocol.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        several = config == "Test_Set"
        column = "images" if several else "image"
        rows = _only(self._rows(config, column, "ID", "Classification_Task", *OPEN_TASKS), people)
        views = [
            (row["ID"], (row, image, f"images[{number}]" if several else "image"))
            for row in rows
            for number, image in enumerate(row[column] or [None] if several else [row[column]])
        ]
        return self._sift(questions_once(self.picture, self._draw(views, photos_per_person)))

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, test, retain, test_retain, realworld.

        The `test*` splits ask about the photographs of `Test_Set`, which no stage trains on. Their
        text questions are left out if all of them are already in `forget` or `retain`.

        Args:
            forget: Config of the people to forget.
            retain: Config of the other people.
            photos_per_person: Most photographs of each of the other people, and most unseen
                photographs of anybody (published: one, at random); None: all.

        Raises:
            InputError: As for `questions`.
        """

        def unseen(config: str, seen: list[Question]) -> list[Question]:
            self._check_within("Test_Set", config)
            questions = self.questions(
                "Test_Set", people=self.people(config), photos_per_person=photos_per_person
            )
            repeated = set(seen).issuperset(q for q in questions if q.modality == "qa")
            return [q for q in questions if q.modality == "vqa"] if repeated else questions

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
