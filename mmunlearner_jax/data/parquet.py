"""Rows of released parquet files, and in one line what is wrong with them: file, row and column.

What both readers share (`mllmu`, `clear`) and the builders of array_record files use too.
"""

import contextlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import LONGEST, InputError, listed, refusing, shown

# What a file may hold: the released configs have some thousand rows. A few bytes of parquet can
# stand for any number of rows, and for any number of copies of a long value.
MOST_ROWS = 1_000_000
MOST_GROWTH = 1000
_ALWAYS_FINE = 2**30  # bytes

_BATCH = 2  # rows at once: two cells of 1 GiB are what Arrow's offsets of 32 bits reach
_BUFFER = 2**20  # bytes of a column that are read ahead


_LISTS = (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)
_LISTS += (pa.FixedSizeListType,)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_BYTES += (pa.types.is_fixed_size_binary,)


@dataclass(frozen=True)
class ParquetRow:
    """A row of a file: `cells` by column, and its `place`, "FILE: row 3" (counted from 0)."""

    place: str
    cells: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.cells[column]

    def problem(self, what: str) -> "Problem":
        """Says where it is that something is wrong."""
        return f"{self.place}: {what}"


# What stands in place of a row or record that cannot be used: where, and what is wrong with it.
Problem = str
Record = TypeVar("Record", Sample, Question, ParquetRow)
# Raises `InputError` for width and height of a picture that the model cannot see.
Check = Callable[[tuple[int, int]], None]
# `ParquetBench.picture`
See = Callable[[ParquetRow, dict[str, Any] | None, str], tuple[bytes, None] | tuple[None, Problem]]


def no_check(size: tuple[int, int]) -> None:
    """Takes pictures of any size: no model is known yet."""


def shards(folder: Path) -> list[Path]:
    """Returns the parquet files of a folder in the order of their names, without hidden ones.

    macOS puts a `._NAME.parquet` beside a file on a foreign disk.
    """
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def configs(root: Path) -> list[str]:
    """Returns the names of the folders that hold parquet files."""
    folders = (path for path in root.glob("*/") if not path.name.startswith("."))
    return sorted(folder.name for folder in folders if shards(folder))


def read_rows(
    folder: Path, schema: pa.Schema, *, whole: bool = True
) -> Iterator[ParquetRow | Problem]:
    """Reads the columns of a schema out of all the parquet files of a folder.

    The schemas of all files are compared before the first row is read. Of a file a few rows are in
    memory at once, however large its row groups are.

    Args:
        folder: Holds the shards of one config.
        schema: The columns wanted, nested as wanted. Other columns are left alone; other spellings
            of a type (large_string, string_view, a dictionary ...) and columns of nothing but
            nulls will do.
        whole: Whether a struct must have all its members.

    Yields:
        The rows, in the order of the files' names; in place of one with a text that is not UTF-8,
        which that is.

    Raises:
        InputError: The folder or a column is missing, a column nests otherwise, two shards
            differ, or a file is not parquet, is damaged or grows beyond all measure.
    """
    files = shards(folder)
    if not files:
        there = listed(configs(folder.parent), 12) or "none"
        raise InputError(f"{folder}: no such config; there are {there}: fetch it too")
    first: dict[str, pa.DataType] = {}
    for file in files:
        with _opened(file) as opened:
            found = opened.schema_arrow
        _check_columns(file, found, schema, whole)
        types = dict(zip(found.names, found.types, strict=True))
        first = first or types
        if different := [name for name in {**first, **types} if (name in first) != (name in types)]:
            name = different[0]
            raise InputError(
                f"{file}: column {shown(name)} is {types.get(name)}, but {first.get(name)} in "
                f"{files[0].name}; fetch all files of one revision"
            )
    for file in files:
        yield from _rows_of(file, schema.names)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    """A parquet file; whatever goes wrong with it inside is one line."""
    if not file.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{file}: is no regular file; remove it, or fetch it again")
    with refusing(file, "it is not a readable parquet file; fetch it again"):
        with pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            if opened.metadata.num_rows > MOST_ROWS:
                raise InputError(
                    f"{file}: has {opened.metadata.num_rows:,} rows, above {MOST_ROWS:,}; split it"
                )
            yield opened


def _rows_of(file: Path, columns: list[str]) -> Iterator[ParquetRow | Problem]:
    most = _ALWAYS_FINE + MOST_GROWTH * file.stat().st_size
    number = taken = 0
    with _opened(file) as opened:
        for batch in opened.iter_batches(_BATCH, columns=columns):
            taken += batch.nbytes
            if taken > most:
                said = f"its first {number:,} rows grow to more than {MOST_GROWTH} times its size"
                raise InputError(f"{file}: {said}; write it anew")
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            for index in range(batch.num_rows):
                yield _row(f"{file}: row {number}", arrays, index)
                number += 1


def _row(place: str, arrays: dict[str, pa.Array], index: int) -> ParquetRow | Problem:
    row = ParquetRow(place, {})
    for column, array in arrays.items():
        try:
            row.cells[column] = array[index].as_py()
        except UnicodeDecodeError as error:
            return row.problem(f"{column} is not UTF-8: byte {error.object[error.start]:#x}")
    return row


def _check_columns(file: Path, found: pa.Schema, schema: pa.Schema, whole: bool) -> None:
    missing = [name for name in schema.names if found.names.count(name) != 1]
    if missing:
        raise InputError(
            f"{file}: no column {', '.join(missing)}; it has {listed(found.names, 12)}: "
            "fetch the released file"
        )
    for wanted in schema:
        there = found.field(wanted.name).type
        if not _fits(there, wanted.type, whole):
            raise InputError(
                f"{file}: column {wanted.name} is {shown(there)}, not {wanted.type}; "
                "fetch the released file"
            )


def _fits(found: pa.DataType, wanted: pa.DataType, whole: bool) -> bool:
    """Whether it nests alike; of an image's struct the `bytes` are enough."""
    if isinstance(found, pa.BaseExtensionType):
        found = found.storage_type
    if isinstance(found, pa.DictionaryType):
        found = found.value_type
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
        return isinstance(found, _LISTS) and _fits(found.value_type, wanted.value_type, whole)
    return any(is_one(found) for is_one in (_BYTES if pa.types.is_binary(wanted) else _TEXTS))


def clean(value: Any) -> str:
    """Returns a cell's text; "" for null, blanks and the NaN that pandas writes for null.

    A list or an object, which JSON may have in its place, is no text either.
    """
    text = "" if value is None or isinstance(value, list | dict) else str(value).strip()
    return "" if text in ("nan", "NaN") else text


def is_utf8(text: str) -> bool:
    """Whether a text can be written at all: JSON may escape half of a surrogate pair."""
    return not re.search("[\ud800-\udfff]", text)


class ParquetBench:
    """What both readers are: a folder per config, people told apart by one column.

    Args:
        root: Folder that holds the config folders.
        seed: Decides whatever the published code draws unseeded (defect D-22).
        max_bad_fraction: Fraction of unusable records that is tolerated, by call: they are named
            in the log and left out.
        check: `Pictures.check` of the model: what it refuses cannot be used either.

    Raises:
        InputError: `root` is not a folder with configs in it.
    """

    taught: str  # config of everything that is taught
    person_column: str
    schema: Callable[[str], pa.Schema]

    def __init__(
        self,
        root: str | Path,
        *,
        seed: int = 0,
        max_bad_fraction: float = 0.0,
        check: Check = no_check,
    ):
        self.root = Path(root)
        self.seed = seed
        self.max_bad_fraction = max_bad_fraction
        self.check = check
        if not configs(self.root):
            raise InputError(
                f"{self.root}: holds no CONFIG/*.parquet; name the folder of a benchmark"
            )

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once, in the order of the files.

        Raises:
            InputError: The config is missing or empty, or tells not in every row who it is.
        """
        return list(self._first_rows(config))

    def picture(
        self, row: ParquetRow, image: dict[str, Any] | None, column: str = "image"
    ) -> tuple[bytes, None] | tuple[None, Problem]:
        """Returns an encoded picture if it can be decoded and seen, or else what is wrong with it.

        Args:
            row: Where it comes from.
            image: The Hugging Face struct of `bytes` and `path`.
            column: How its place in the row is called.
        """
        encoded, path = (image or {}).get("bytes"), (image or {}).get("path")
        if not encoded and path:
            said = f"{column} holds only the path {shown(path)}, not its bytes"
            return None, row.problem(f"{said}: store them in the file")
        if not encoded:
            return None, row.problem(f"{column} is null")
        try:
            self.check(decoded(encoded).size)
        except InputError as error:
            return None, row.problem(f"{column} {error}")
        return encoded, None

    def _first_rows(self, config: str) -> dict[str, ParquetRow]:
        """Returns the first row of each of a config's people."""
        found: dict[str, ParquetRow] = {}
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
            logging.warning("left out: %s", shown(problem, LONGEST))
        return good

    def _rows(self, config: str, *columns: str) -> list[ParquetRow]:
        schema = self.schema(config)
        wanted = pa.schema([schema.field(column) for column in columns])
        rows = self._sift(read_rows(self.root / config, wanted))
        if not rows:
            raise InputError(f"{self.root / config}: holds no row; give it at least one")
        for row in rows if self.person_column in columns else ():
            row.cells[self.person_column] = clean(row[self.person_column])
            if not row[self.person_column]:
                raise InputError(row.problem(f"{self.person_column} is empty; fill it in"))
        return rows
