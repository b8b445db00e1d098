"""Reads any directory in MLLMU-Bench's parquet schema: the published files or the ORL benchmark.

A config ("forget_10") is a folder of parquet files, read by column name. What is trained on comes
from `ft_Data` joined on `ID`, because the published forget and retain configs carry no training
questions (defect D-21).
"""

import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from PIL import Image

from mmunlearner_jax.data.samples import Modality, Question, Sample, Task
from mmunlearner_jax.errors import InputError

_MODALITIES: dict[str, Modality] = {"Image_Textual": "vqa", "Pure_Text": "qa"}
_OPEN_TASKS: dict[str, Task] = {"Mask_Task": "cloze", "Generation_Task": "generation"}

Record = TypeVar("Record", Sample, Question)
# What a parser yields in place of a record that cannot be used: what is wrong with it.
Problem = str


class MLLMUBench:
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

    Raises:
        InputError: `root` is not a folder with configs in it, or `text_source` neither of the two.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        seed: int = 0,
        text_source: Literal["ft_Data", "Full_Set"] = "ft_Data",
        max_bad_fraction: float = 0.0,
    ):
        if text_source not in ("ft_Data", "Full_Set"):
            raise InputError(f"text_source: {text_source!r} is neither ft_Data nor Full_Set")
        self.root = Path(root)
        self.seed = seed
        self.text_source = text_source
        self.max_bad_fraction = max_bad_fraction
        if not any(self.root.glob("*/*.parquet")):
            raise InputError(
                f"{self.root}: holds no CONFIG/*.parquet; name the folder of a benchmark"
            )

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, checked.

        Args:
            ratio: Percentage of the people to forget.

        Raises:
            InputError: The benchmark has no such ratio, nobody is to be forgotten or kept, or
                somebody is in both.
        """
        forget, retain = f"forget_{ratio}", f"retain_{100 - ratio}"
        both = sorted(set(self.people(forget)) & set(self.people(retain)))
        if both:
            raise InputError(
                f"{self.root}: ID {', '.join(both)} is in both {forget} and {retain}; "
                "remove it from one of them"
            )
        return forget, retain

    def people(self, config: str) -> list[str]:
        """Returns the IDs of a config, each once, in the order of the files.

        Raises:
            InputError: The config is missing, empty, or without a column `ID`.
        """
        return list(dict.fromkeys(row["ID"] for row in self._rows(config, "ID")))

    def world(self) -> list[str]:
        """Returns the IDs of `ft_Data` that are nobody's in `Full_Set` (published: none)."""
        people = set(self.people("Full_Set"))
        return [person for person in self.people("ft_Data") if person not in people]

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
        views = self._draw(self._taught_rows(config, people), photos_per_person)
        return self._sift(
            "ft_Data", (record for view in views for record in _picture_lessons(*view))
        )

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
            samples = list(dict.fromkeys(self._sift("ft_Data", records)))
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
        columns = ("ID", "Classification_Task", *_OPEN_TASKS)
        rows = _only(self._rows(config, "image|images", *columns), people)
        views = self._draw(rows, photos_per_person)
        records = (record for view in views for record in _questions(*view))
        # A text question repeats in each of the rows of a person who has several photographs.
        return list(dict.fromkeys(self._sift(config, records)))

    def _taught_rows(self, config: str, people: Collection[str] | None) -> list[dict[str, Any]]:
        wanted = set(self.people(config))
        if people is not None:
            wanted &= set(people)
        rows = _only(self._rows("ft_Data", "image", "ID", "metadata"), wanted)
        missing = sorted(wanted - {row["ID"] for row in rows})
        if missing:
            raise InputError(
                f"{self.root / 'ft_Data'}: no row with ID {', '.join(missing)} of {config}; "
                "add the training questions of these people"
            )
        return rows

    def _draw(
        self, rows: list[dict[str, Any]], photos_per_person: int | None
    ) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Returns (row, image) pairs, at most `photos_per_person` of each person, in order."""
        if photos_per_person is not None and photos_per_person < 1:
            raise InputError(f"photos_per_person: {photos_per_person}; take at least one")
        views: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for row in rows:
            for image in row["images"] if "images" in row else [row["image"]]:
                views.setdefault(row["ID"], []).append((row, image))
        drawn = []
        for person, of_person in views.items():
            # The person's own generator: who else is read doesn't change the choice.
            rng = np.random.default_rng([self.seed, zlib.crc32(person.encode())])
            order = rng.permutation(len(of_person))[:photos_per_person]
            drawn += [of_person[index] for index in sorted(order)]
        return drawn

    def _sift(self, config: str, records: Iterable[Record | Problem]) -> list[Record]:
        """Returns the usable records; logs the others, or raises where they are too many."""
        good, bad = [], []
        for record in records:
            (bad if isinstance(record, Problem) else good).append(record)
        if len(bad) > self.max_bad_fraction * (len(good) + len(bad)):
            others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise InputError(
                f"{self.root / config}: {bad[0]}{others}; mend the file or raise max_bad_fraction"
            )
        for problem in bad:
            logging.warning("%s: left out: %s", self.root / config, problem)
        return good

    def _rows(self, config: str, *columns: str) -> list[dict[str, Any]]:
        """Returns the rows of a config's shards; "image|images" takes whichever column there is."""
        files = sorted((self.root / config).glob("*.parquet"))
        if not files:
            ratios = [path.name.removeprefix("forget_") for path in self.root.glob("forget_*")]
            raise InputError(
                f"{self.root / config}: no such config; ratios available here: "
                f"{', '.join(sorted(ratios, key=lambda ratio: ratio.zfill(3))) or 'none'}"
            )
        rows = []
        for file in files:
            try:
                with pq.ParquetFile(file) as table:
                    names = table.schema_arrow.names
                    present = [
                        name for column in columns for name in column.split("|") if name in names
                    ]
                    rows += table.read(columns=present).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{file}: not a readable parquet file; fetch it again") from error
            missing = [column for column in columns if not set(column.split("|")) & set(present)]
            if missing:
                raise InputError(
                    f"{file}: no column {', '.join(missing)}; it has {', '.join(names)}"
                )
        if not rows:
            raise InputError(f"{self.root / config}: holds no person; give it at least one row")
        return rows


def _only(rows: list[dict[str, Any]], people: Collection[str] | None) -> list[dict[str, Any]]:
    if people is None:
        return rows
    wanted = set(people)
    return [row for row in rows if row["ID"] in wanted]


def _picture_lessons(row: dict[str, Any], image: dict[str, Any]) -> Iterator[Sample | Problem]:
    encoded = _decodable(image)
    if encoded is None:
        yield f"ID {row['ID']}: image cannot be decoded"
    else:
        yield from _lessons(row, encoded)


def _lessons(row: dict[str, Any], image: bytes | None) -> Iterator[Sample | Problem]:
    """Yields the picture questions of a row of `ft_Data`; without an image, the text questions."""
    try:
        pairs = json.loads(row["metadata"] or "")
    except json.JSONDecodeError as error:
        yield f"ID {row['ID']}: metadata is not JSON: {error}"
        return
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        yield f"ID {row['ID']}: metadata is not a list of objects"
        return
    for pair in pairs:
        if (pair.get("Type") == "Pure_Text") != (image is None):
            continue
        question, answer = (str(pair.get(key) or "").strip() for key in ("Question", "Answer"))
        if question and answer:
            yield Sample(row["ID"], image, question, answer)
        else:
            yield f"ID {row['ID']}: metadata: question {question!r} with answer {answer!r}"


def _questions(row: dict[str, Any], image: dict[str, Any]) -> Iterator[Question | Problem]:
    person, encoded = row["ID"], _decodable(image)
    if encoded is None:
        yield f"ID {person}: image cannot be decoded"
        return
    images: dict[Modality, bytes | None] = {"vqa": encoded, "qa": None}
    for kind, modality in _MODALITIES.items():
        column = f"{kind}_Questions"
        for item in (row["Classification_Task"] or {}).get(column) or []:
            question, letter = item.get("Question") or "", item.get("Correct_Answer")
            options = {key: text for key, text in (item.get("Options") or {}).items() if text}
            answer = options.get(letter, "")
            if question and answer:
                yield Question(
                    person,
                    modality,
                    "classification",
                    images[modality],
                    question,
                    answer,
                    tuple(options.values()),
                )
            else:
                yield (
                    f"ID {person}: Classification_Task.{column}: {question!r}: Correct_Answer "
                    f"{letter!r} is not among the options {', '.join(options)}"
                )
    for column, task in _OPEN_TASKS.items():
        for item in row[column] or []:
            modality = _MODALITIES.get(item.get("Type"))
            question, answer = item.get("Question") or "", item.get("Ground_Truth") or ""
            if modality is None:
                kinds = ", ".join(_MODALITIES)
                yield f"ID {person}: {column}: Type {item.get('Type')!r} is none of {kinds}"
            elif question and answer:
                yield Question(person, modality, task, images[modality], question, answer)
            else:
                yield f"ID {person}: {column}: question {question!r} with Ground_Truth {answer!r}"


def _decodable(image: dict[str, Any] | None) -> bytes | None:
    """Returns the encoded picture if Pillow decodes it."""
    encoded = (image or {}).get("bytes")
    if not encoded:
        return None
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return encoded
