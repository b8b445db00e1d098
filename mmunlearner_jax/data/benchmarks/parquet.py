"""Rows of parquet files, and one-line problems that name file, row and column.

All readers and the builders of array_record files share this module.
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

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, Check, no_check
from mmunlearner_jax.data.clips import examine, joined
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import LONGEST, InputError, listed, refusing, shown

# Limits of a file; the released configs have some thousand rows. A few bytes of parquet can encode
# any number of rows, and any number of copies of a long value.
MOST_ROWS = 1_000_000
MOST_GROWTH = 1000
_ALWAYS_FINE = 2**30  # bytes

_BATCH = 2  # rows of a batch: Arrow's 32-bit offsets allow two cells of 1 GiB
_BUFFER = 2**20  # bytes of a column's read-ahead buffer


_LISTS = (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)
_LISTS += (pa.FixedSizeListType,)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_BYTES += (pa.types.is_fixed_size_binary,)


@dataclass(frozen=True)
class ParquetRow:
    """A row of a file: `cells` by column, and its `place`, e.g. "FILE: row 3" (from 0)."""

    place: str
    cells: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.cells[column]

    def problem(self, what: str) -> "Problem":
        """Returns a problem of this row: its place and what is wrong."""
        return f"{self.place}: {what}"


# Replaces an unusable row or record: its place and what is wrong with it.
Problem = str
Record = TypeVar("Record", Sample, Question, ParquetRow)
See = Callable[[ParquetRow, dict[str, Any] | None, str], tuple[bytes, None] | tuple[None, Problem]]


def shards(folder: Path) -> list[Path]:
    """Returns the parquet files of a folder in the order of their names, without hidden files.

    (macOS adds a hidden `._NAME.parquet` to each file on a disk of another file system.)
    """
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def configs(root: Path) -> list[str]:
    """Returns the names of the folders that hold parquet files."""
    folders = (path for path in root.glob("*/") if not path.name.startswith("."))
    return sorted(folder.name for folder in folders if shards(folder))


def read_rows(
    folder: Path, schema: pa.Schema, *, whole: bool = True
) -> Iterator[ParquetRow | Problem]:
    """Reads the columns of a schema from all parquet files of a folder.

    The schemas of all files are compared before the first row is read. Only a few rows are in
    memory at a time, whatever the size of the row groups.

    Args:
        folder: Folder with the shards of one config.
        schema: Columns to read, with their nesting. Other columns are ignored. Variants of a type
            (large_string, string_view, a dictionary ...) and columns of nulls alone are accepted.
        whole: Whether a struct must have all its members.

    Yields:
        The rows, in the order of the files' names, with a problem in place of each row whose text
        is not UTF-8.

    Raises:
        InputError: The folder or a column is missing, a column has another nesting, two shards
            differ, or a file is not parquet, is damaged or expands too much.
    """
    files = shards(folder)
    if not files:
        others = listed(configs(folder.parent), 12) or "none"
        raise InputError(f"{folder}: no such config; there are {others}: fetch it, too")
    first: dict[str, pa.DataType] = {}
    for file in files:
        with _opened(file) as opened:
            columns = opened.schema_arrow
        _check_columns(file, columns, schema, whole)
        types = dict(zip(columns.names, columns.types, strict=True))
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
    """Opens a parquet file; any error inside the context becomes a one-line `InputError`."""
    if not file.is_file():  # opening a pipe would never return
        raise InputError(f"{file}: is not a regular file; remove it or fetch it again")
    with refusing(file, "it is not a readable parquet file; fetch it again"):
        with pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            if opened.metadata.num_rows > MOST_ROWS:
                raise InputError(
                    f"{file}: has {opened.metadata.num_rows:,} rows, more than {MOST_ROWS:,};"
                    " split it"
                )
            yield opened


def _rows_of(file: Path, columns: list[str]) -> Iterator[ParquetRow | Problem]:
    most = _ALWAYS_FINE + MOST_GROWTH * file.stat().st_size
    number = taken = 0
    with _opened(file) as opened:
        for batch in opened.iter_batches(_BATCH, columns=columns):
            taken += batch.nbytes
            if taken > most:
                size = f"more than {MOST_GROWTH} times the size of the file"
                raise InputError(
                    f"{file}: its first {number:,} rows expand to {size}; write it again"
                )
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


def _check_columns(file: Path, columns: pa.Schema, schema: pa.Schema, whole: bool) -> None:
    missing = [name for name in schema.names if columns.names.count(name) != 1]
    if missing:
        raise InputError(
            f"{file}: no column {', '.join(missing)}; it has {listed(columns.names, 12)}: "
            "fetch the released file"
        )
    for wanted in schema:
        kind = columns.field(wanted.name).type
        if not _fits(kind, wanted.type, whole):
            raise InputError(
                f"{file}: column {wanted.name} is {shown(kind)}, not {wanted.type}; "
                "fetch the released file"
            )


def _fits(kind: pa.DataType, wanted: pa.DataType, whole: bool) -> bool:
    """Returns whether a type has the wanted nesting; an image's struct needs only `bytes`."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    if isinstance(wanted, pa.StructType):
        if not isinstance(kind, pa.StructType):
            return False
        has = {field.name: kind.get_field_index(field.name) >= 0 for field in wanted}
        needed = [name for name in has if whole and name != "path"]
        return all(has[name] for name in needed) and all(
            _fits(kind.field(field.name).type, field.type, whole)
            for field in wanted
            if has[field.name]
        )
    if isinstance(wanted, pa.ListType):
        return isinstance(kind, _LISTS) and _fits(kind.value_type, wanted.value_type, whole)
    return any(is_one(kind) for is_one in (_BYTES if pa.types.is_binary(wanted) else _TEXTS))


def clean(value: Any) -> str:
    """Returns a cell's text; "" for null, blanks and the NaN that pandas writes for null.

    A list or an object, which JSON allows in place of a text, gives "", too.
    """
    text = "" if value is None or isinstance(value, list | dict) else str(value).strip()
    return "" if text in ("nan", "NaN") else text


def is_utf8(text: str) -> bool:
    """Returns whether a text can be encoded; JSON can escape half of a surrogate pair."""
    return not re.search("[\ud800-\udfff]", text)


def refused(row: ParquetRow, image: bytes, check: Check, column: str = "image") -> Problem | None:
    """Returns why a model cannot take an encoded picture or clip; None if it can.

    Args:
        row: The row of the picture.
        image: The encoded picture or stored clip.
        check: `Pictures.check` of the model.
        column: Column of the picture, for the problem.
    """
    try:
        examine(image, check)
    except InputError as error:
        return row.problem(f"{column} {error}")
    return None


def _frames(frames: Any, encoded: bytes | None) -> list[bytes]:
    """Returns the encoded frames of a clip's cell, checked."""
    if encoded:
        raise InputError("has both bytes and frames; give a picture or a clip")
    if not isinstance(frames, list) or not all(isinstance(x, bytes) and x for x in frames):
        raise InputError("has frames that are no list of encoded pictures; store their bytes")
    return frames


def sift(records: Iterable[Record | Problem], max_bad_fraction: float) -> list[Record]:
    """Returns the usable records and logs the problems.

    Raises:
        InputError: More than this fraction of the records are problems; the first is named.
    """
    good, bad = [], []
    for record in records:
        (bad if isinstance(record, Problem) else good).append(record)
    if len(bad) > max_bad_fraction * (len(good) + len(bad)):
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(f"{bad[0]}{others}; correct the file or raise max_bad_fraction")
    for problem in bad:
        logging.warning("left out: %s", shown(problem, LONGEST))
    return good


class ParquetBench:
    """Base of the readers: a folder for each config, and one column that identifies people.

    Args:
        root: Folder that holds the config folders.
        seed: Seed of all random choices (D-22: the published code has no seed).
        max_bad_fraction: Tolerated fraction of unusable records in each call. They are named in the
            log and left out.
        check: `Pictures.check` of the model; a picture that it refuses is unusable.

    Raises:
        InputError: `root` is not a folder that holds configs.
    """

    record: BenchmarkRecord
    taught: str  # config of all samples
    everyone: str  # config of all people
    person_column: str

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
        self._first: dict[str, dict[str, ParquetRow]] = {}
        if not configs(self.root):
            raise InputError(
                f"{self.root}: holds no CONFIG/*.parquet; give the folder of a benchmark"
            )

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once, in the order of the files.

        Raises:
            InputError: The config is missing or empty, or a row names no person.
        """
        return list(self._first_rows(config))

    def picture(
        self, row: ParquetRow, image: dict[str, Any] | None, column: str = "image"
    ) -> tuple[bytes, None] | tuple[None, Problem]:
        """Returns an encoded picture or stored clip if the model can take it, or else its problem.

        Args:
            row: The row of the picture.
            image: Hugging Face's struct of `bytes` and `path`; or, of a clip, with `frames` (the
                encoded pictures) and `fps` in place of the bytes.
            column: The picture's column, for the problem.
        """
        encoded, path = (image or {}).get("bytes"), (image or {}).get("path")
        if frames := (image or {}).get("frames"):
            try:
                encoded = joined(_frames(frames, encoded), (image or {}).get("fps"))
            except InputError as error:
                return None, row.problem(f"{column} {error}")
        if not encoded and path:
            problem = f"{column} holds only the path {shown(path)}, not the bytes"
            return None, row.problem(f"{problem}: store them in the file")
        if not encoded:
            return None, row.problem(f"{column} is null")
        problem = refused(row, encoded, self.check, column)
        return (None, problem) if problem else (encoded, None)

    def _first_rows(self, config: str) -> dict[str, ParquetRow]:
        """Returns the first row of each person of a config, which is read once."""
        if config not in self._first:
            first: dict[str, ParquetRow] = {}
            for row in self._rows(config, self.person_column):
                first.setdefault(row[self.person_column], row)
            self._first[config] = first
        return self._first[config]

    def _check_apart(self, forget: str, retain: str) -> None:
        """Raises if a person is in both configs, or in one of them but never taught."""
        forgotten, kept = self._first_rows(forget), self._first_rows(retain)
        for person, row in forgotten.items():
            if person in kept:
                both = f"{self.person_column} {person} is here and in {kept[person].place}"
                raise InputError(row.problem(f"{both}; remove it from one of the two"))
        for config in (forget, retain):
            self._check_within(self.taught, config)

    def _check_within(self, whole: str, config: str) -> None:
        """Raises if a person of a config is missing in a larger config."""
        known = set(self.people(whole))
        for person, row in self._first_rows(config).items():
            if person not in known:
                missing = f"{self.person_column} {person} has no row in {self.root / whole}"
                raise InputError(row.problem(f"{missing}; add one there"))

    def _draw(self, views: Iterable[tuple[str, Any]], photos_per_person: int | None) -> list[Any]:
        """Returns the drawn views in order.

        Args:
            views: Pairs of a person and what to draw, e.g. a row.
            photos_per_person: Most views of a person; None: all.
        """
        if photos_per_person is not None and photos_per_person < 1:
            raise InputError(f"photos_per_person: {photos_per_person}; give at least 1")
        by_person: dict[str, list[Any]] = {}
        for person, view in views:
            by_person.setdefault(person, []).append(view)
        drawn = []
        for person, of_person in by_person.items():
            # Each person has a generator, so the choice does not depend on the other people.
            order = self._generator(person.encode()).permutation(len(of_person))[:photos_per_person]
            drawn += [of_person[index] for index in sorted(order)]
        return drawn

    def _generator(self, salt: bytes) -> np.random.Generator:
        """Returns a random generator of its own for each `salt`."""
        return np.random.default_rng([self.seed, zlib.crc32(salt)])

    def _sift(self, records: Iterable[Record | Problem]) -> list[Record]:
        """Returns the usable records, see `sift`."""
        return sift(records, self.max_bad_fraction)

    def _rows(self, config: str, *columns: str) -> list[ParquetRow]:
        schema = self.record.schema(config)
        wanted = pa.schema([schema.field(column) for column in columns])
        rows = self._sift(read_rows(self.root / config, wanted))
        if not rows:
            raise InputError(f"{self.root / config}: holds no row; give it at least one")
        for row in rows if self.person_column in columns else ():
            row.cells[self.person_column] = clean(row[self.person_column])
            if not row[self.person_column]:
                raise InputError(row.problem(f"{self.person_column} is empty; fill it in"))
        return rows
