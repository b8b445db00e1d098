"""Rows of released parquet files, and in one line what is wrong with them: file, row and column.

What both readers share (`mllmu`, `clear`) and the builders of array_record files use too.
"""

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from PIL import Image

from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError

# Below Pillow's own warning of decompression bombs (89 million pixels), however square.
MAX_SIDE = 8192

Record = TypeVar("Record", Sample, Question)
# What a parser yields in place of a record that cannot be used: where, and what is wrong with it.
Problem = str


@dataclass(frozen=True)
class Row:
    """A row of a file: `cells` by column, and its `place`, "FILE: row 3" (counted from 0)."""

    place: str
    cells: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.cells[column]

    def problem(self, what: str) -> Problem:
        """Says where it is that something is wrong."""
        return f"{self.place}: {what}"


def read_rows(folder: Path, schema: pa.Schema, *, whole: bool = True) -> Iterator[Row]:
    """Reads the columns of a schema out of all the parquet files of a folder.

    The schemas of all files are compared before the first row is read.

    Args:
        folder: Holds the shards of one config.
        schema: The columns wanted, nested as wanted. Other columns are left alone; the wider
            Arrow types (large_string ...) and columns of nothing but nulls will do.
        whole: Whether a struct must have all its members.

    Yields:
        The rows, in the order of the files' names.

    Raises:
        InputError: The folder or a column is missing, a column nests otherwise, two shards
            differ, or a file is not parquet.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        there = sorted({path.parent.name for path in folder.parent.glob("*/*.parquet")})
        raise InputError(
            f"{folder}: no such config; there are {', '.join(there) or 'none'}: fetch it too"
        )
    first: dict[str, pa.DataType] = {}
    for file in files:
        try:
            found = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: not a readable parquet file; fetch it again") from error
        _check_columns(file, found, schema, whole)
        types = dict(zip(found.names, found.types, strict=True))
        first = first or types
        different = [name for name in {**first, **types} if first.get(name) != types.get(name)]
        if different:
            name = different[0]
            raise InputError(
                f"{file}: column {name} is {types.get(name)}, but {first.get(name)} in "
                f"{files[0].name}; fetch all files of one revision"
            )
    for file in files:
        try:
            table = pq.read_table(file, columns=schema.names, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: not a readable parquet file; fetch it again") from error
        number = 0
        for batch in table.to_batches(max_chunksize=64):
            for cells in batch.to_pylist():
                yield Row(f"{file}: row {number}", cells)
                number += 1


def _check_columns(file: Path, found: pa.Schema, schema: pa.Schema, whole: bool) -> None:
    missing = [name for name in schema.names if name not in found.names]
    if missing:
        raise InputError(
            f"{file}: no column {', '.join(missing)}; it has {', '.join(found.names)}: "
            "fetch the released file"
        )
    for wanted in schema:
        there = found.field(wanted.name).type
        if not _fits(there, wanted.type, whole):
            raise InputError(
                f"{file}: column {wanted.name} is {there}, not {wanted.type}; "
                "fetch the released file"
            )


def _fits(found: pa.DataType, wanted: pa.DataType, whole: bool) -> bool:
    """Whether it nests alike; of an image's struct the `bytes` are enough."""
    if pa.types.is_null(found):
        return True
    if isinstance(wanted, pa.StructType):
        if not isinstance(found, pa.StructType):
            return False
        there = {field.name: found.get_field_index(field.name) >= 0 for field in wanted}
        needed = [name for name in there if whole and name != "path"]
        return all(there[name] for name in needed) and all(
            _fits(found.field(field.name).type, field.type, whole)
            for field in wanted
            if there[field.name]
        )
    if isinstance(wanted, pa.ListType):
        return isinstance(found, (pa.ListType, pa.LargeListType)) and _fits(
            found.value_type, wanted.value_type, whole
        )
    if pa.types.is_binary(wanted):
        return pa.types.is_binary(found) or pa.types.is_large_binary(found)
    return pa.types.is_string(found) or pa.types.is_large_string(found)


def clean(value: Any) -> str:
    """Returns a cell's text; "" for null, blanks and the NaN that pandas writes for null."""
    text = "" if value is None else str(value).strip()
    return "" if text in ("nan", "NaN") else text


def picture(
    row: Row, image: dict[str, Any] | None, column: str = "image"
) -> tuple[bytes, None] | tuple[None, Problem]:
    """Returns an encoded picture if Pillow decodes it, or else what is wrong with it.

    Args:
        row: Where it comes from.
        image: The Hugging Face struct of `bytes` and `path`.
        column: How its place in the row is called.
    """
    encoded = (image or {}).get("bytes")
    if not encoded:
        return None, row.problem(f"{column} is null")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if not (0 < min(opened.size) and max(opened.size) <= MAX_SIDE):
                width, height = opened.size
                return None, row.problem(
                    f"{column} is {width} x {height} pixels, not within 1 ... {MAX_SIDE} a side"
                )
            opened.load()
    except Image.DecompressionBombError:
        return None, row.problem(f"{column} has more pixels than {MAX_SIDE} x {MAX_SIDE}")
    except (OSError, SyntaxError, ValueError):
        return None, row.problem(f"{column} cannot be decoded")
    return encoded, None


class ParquetBench:
    """What both readers are: a folder per config, people told apart by one column.

    Args:
        root: Folder that holds the config folders.
        seed: Decides whatever the published code draws unseeded (defect D-22).
        max_bad_fraction: Fraction of unusable records that is tolerated, by call: they are named
            in the log and left out.

    Raises:
        InputError: `root` is not a folder with configs in it.
    """

    taught: str  # config of everything that is taught
    person_column: str
    schema: Callable[[str], pa.Schema]

    def __init__(self, root: str | Path, *, seed: int = 0, max_bad_fraction: float = 0.0):
        self.root = Path(root)
        self.seed = seed
        self.max_bad_fraction = max_bad_fraction
        if not any(self.root.glob("*/*.parquet")):
            raise InputError(
                f"{self.root}: holds no CONFIG/*.parquet; name the folder of a benchmark"
            )

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once, in the order of the files.

        Raises:
            InputError: The config is missing or empty, or tells not in every row who it is.
        """
        return list(self._first_rows(config))

    def _first_rows(self, config: str) -> dict[str, Row]:
        """Returns the first row of each of a config's people."""
        found: dict[str, Row] = {}
        for row in self._rows(config, self.person_column):
            found.setdefault(row[self.person_column], row)
        return found

    def _check_apart(self, forget: str, retain: str) -> None:
        """Raises where somebody is in both sets, or in one of them but never taught."""
        forgotten, kept = self._first_rows(forget), self._first_rows(retain)
        for person, row in forgotten.items():
            if person in kept:
                both = f"{self.person_column} {person} is here and in {kept[person].place}"
                raise InputError(row.problem(f"{both}; remove it from one of them"))
        for config in (forget, retain):
            self._check_within(self.taught, config)

    def _check_within(self, whole: str, config: str) -> None:
        """Raises where somebody of a config is missing in a larger one."""
        known = set(self.people(whole))
        for person, row in self._first_rows(config).items():
            if person not in known:
                missing = f"{self.person_column} {person} has no row in {self.root / whole}"
                raise InputError(row.problem(f"{missing}; add one there"))

    def _draw(self, views: Iterable[tuple[str, Any]], photos_per_person: int | None) -> list[Any]:
        """Returns what is paired with a person, at most so much of each, in order."""
        if photos_per_person is not None and photos_per_person < 1:
            raise InputError(f"photos_per_person: {photos_per_person}; take at least one")
        by_person: dict[str, list[Any]] = {}
        for person, view in views:
            by_person.setdefault(person, []).append(view)
        drawn = []
        for person, of_person in by_person.items():
            # The person's own generator: who else is read doesn't change the choice.
            order = self._generator(person.encode()).permutation(len(of_person))[:photos_per_person]
            drawn += [of_person[index] for index in sorted(order)]
        return drawn

    def _generator(self, what: bytes) -> np.random.Generator:
        """Returns the generator of one thing to draw for."""
        return np.random.default_rng([self.seed, zlib.crc32(what)])

    def _sift(self, records: Iterable[Record | Problem]) -> list[Record]:
        """Returns the usable records; logs the others, or raises where they are too many."""
        good, bad = [], []
        for record in records:
            (bad if isinstance(record, Problem) else good).append(record)
        if len(bad) > self.max_bad_fraction * (len(good) + len(bad)):
            others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise InputError(f"{bad[0]}{others}; mend the file or raise max_bad_fraction")
        for problem in bad:
            logging.warning("left out: %s", problem)
        return good

    def _rows(self, config: str, *columns: str) -> list[Row]:
        schema = self.schema(config)
        wanted = pa.schema([schema.field(column) for column in columns])
        rows = list(read_rows(self.root / config, wanted))
        if not rows:
            raise InputError(f"{self.root / config}: holds no row; give it at least one")
        for row in rows if self.person_column in columns else ():
            row.cells[self.person_column] = clean(row[self.person_column])
            if not row[self.person_column]:
                raise InputError(row.problem(f"{self.person_column} is empty; fill it in"))
        return rows
