"""Artefacts: folders that are there whole and unchanged, or are refused.

The last thing written into a folder is a list of its files with their sizes and CRC-32 checksums;
only then does the folder get its name. What lacks the list, or does not fit it, is not complete.
The checksums are verified whenever an artefact is read, beside the reading.
"""

import contextlib
import json
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import plain, read_json, write_whole
from mmunlearner_jax.processes import is_first, wait

LIST = "mmunlearner-checksums.json"
AGAIN = "remove it and run the same command again"

# CRC-32 finds every single flipped bit, and zlib's costs half of SHA-256 with the instructions for
# it; nobody is kept from writing a list of their own, so that a hash would protect no better.
_THREADS = min(8, os.cpu_count() or 1)
_PIECE = 2**20  # bytes read at a time; a file of so many is verified before anything is read


@contextlib.contextmanager
def writing(folder: Path, *, alone: bool = False) -> Iterator[Path]:
    """Makes an artefact: all of it, or nothing.

    Args:
        folder: Its name, which it gets when the block ends well; an older one is replaced.
        alone: This process writes by itself. Else all processes take part, and the first one makes
            the folder and the list.

    Yields:
        An empty folder, to write to.
    """
    plain(folder)
    first = alone or is_first()
    partial = folder.with_name(f".{folder.name}.partial")  # renaming a sibling moves no data

    def together(point: str) -> None:
        if not alone:
            wait(f"{folder.name}: {point}")

    inside = partial / folder.name  # so that what libraries put beside it goes with it
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        inside.mkdir(parents=True)
    together("the folder is there")
    try:
        yield inside
        together("all files are written")
        if first:
            seal(inside)
            shutil.rmtree(folder, ignore_errors=True)
            inside.replace(folder)
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
    together("it has its name")


def seal(folder: Path) -> None:
    """Writes the list of the files in a folder, and of those in folders within."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LIST)
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(_checksum, files)
        listed = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": found}
            for path, found in zip(files, sums, strict=True)
        }
    write_whole(folder / LIST, json.dumps({"files": listed}, indent=2) + "\n")


def is_sealed(folder: Path) -> bool:
    """Whether the folder has its list, whatever is in there."""
    return os.path.lexists(folder / LIST)


def is_done(folder: Path) -> bool:
    """Whether an artefact need not be made any more.

    Raises:
        InputError: Something of its name is there that is not complete.
    """
    if not os.path.lexists(folder):
        return False
    _check_sizes(folder, _read_list(folder, AGAIN), AGAIN)
    return True


@contextlib.contextmanager
def reading(folder: Path, *, mend: str = AGAIN) -> Iterator[None]:
    """Verifies an artefact, or a folder within one, while it is read in the block.

    Small files are verified before. With several processes each takes a share of the large ones.

    Args:
        folder: To read.
        mend: What to do where it is damaged, for the error.

    Raises:
        InputError: It is missing, not complete or damaged; in place of what the block raises then.
    """
    home = folder if is_sealed(folder) or not is_sealed(folder.parent) else folder.parent
    wanted = _read_list(home, mend)
    inside = "" if home == folder else f"{folder.name}/"
    wanted = {name: entry for name, entry in wanted.items() if name.startswith(inside)}
    _check_sizes(home, wanted, mend)
    small = [name for name, (size, _) in wanted.items() if size <= _PIECE]
    large = [name for name in sorted(wanted) if name not in small]
    with ThreadPoolExecutor(_THREADS) as pool:

        def begin(names: Sequence[str]) -> dict[str, Future[str]]:
            return {name: pool.submit(_checksum, home / name) for name in names}

        def compare(found: dict[str, Future[str]]) -> None:
            for name, checksum in found.items():
                with refusing(home / name, mend):
                    if checksum.result() != wanted[name][1]:
                        raise InputError(
                            f"{home / name}: is damaged: its bytes are not those that were written;"
                            f" {mend}"
                        )

        compare(begin(small))
        beside = begin(large[jax.process_index() :: jax.process_count()])
        try:
            yield
        except Exception:
            compare(beside)  # damage is the reason to name
            raise
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        compare(beside)


def _read_list(folder: Path, mend: str) -> dict[str, tuple[int, str]]:
    """Bytes and checksums of an artefact's files by their names within it."""
    if not os.path.lexists(folder):
        raise InputError(f"{folder} is missing: run the stage that writes it first")
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder, as the stage that makes it writes one; {mend}")
    if not is_sealed(folder):
        raise InputError(
            f"{folder}: is not complete, or of an earlier version ({LIST} in it is missing); {mend}"
        )
    path = folder / LIST
    with refusing(path, mend):
        listed = {
            str(name): (int(entry["bytes"]), str(entry["crc32"]))
            for name, entry in read_json(path, mend=mend)["files"].items()
        }
    if outside := [name for name in listed if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise InputError(f"{path}: {shown(outside[0])} is not in the folder; {mend}")
    return listed


def _check_sizes(folder: Path, wanted: dict[str, tuple[int, str]], mend: str) -> None:
    for name, (size, _) in wanted.items():
        path = folder / name
        with refusing(path, mend):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise InputError(
                f"{path}: is damaged: {found.st_size:,} bytes, not the {size:,} that were written;"
                f" {mend}"
            )


def _checksum(path: Path) -> str:
    total, buffer = 0, bytearray(_PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total = zlib.crc32(view[:count], total)
    return f"{total:08x}"
