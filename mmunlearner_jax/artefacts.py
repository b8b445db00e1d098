"""Artefacts: folders that are complete and unchanged, or are refused.

A list of the files with their sizes and CRC-32 checksums is written into the folder last; then the
folder gets its name. A folder without the list is not complete, and one that does not fit it is
damaged. Checksums are verified each time that an artefact is read, in parallel with the reading.
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

# CRC-32 finds every single flipped bit, in half the time of SHA-256 in hardware. A hash would not
# protect better, because an attacker can write a new list.
_THREADS = min(8, os.cpu_count() or 1)
_PARTIAL = ".{}.partial"
_PIECE = 2**20  # bytes of a read; files of at most this size are verified before the reading begins


@contextlib.contextmanager
def writing(folder: Path, *, alone: bool = False, made: bool = True) -> Iterator[Path]:
    """Makes an artefact as a whole or not at all.

    Args:
        folder: Path of the artefact. It appears, or is replaced, if the block ends without error.
        alone: Whether this process alone writes. Otherwise all processes take part, and the first
            one makes the folder and the list.
        made: Whether the folder that the block writes to is made. Orbax makes its own: where one
            is there, processes that save together may wait for each other for ever.

    Yields:
        An empty folder to write to, or the path of one that the block makes.
    """
    plain(folder)
    first = alone or is_first()
    partial = _partial(folder)

    def together(point: str) -> None:
        if not alone:
            wait(f"{folder.name}: {point}")

    inside = partial / folder.name  # files that libraries put beside it are removed with `partial`
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        (inside if made else partial).mkdir(parents=True)
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


def remove(folder: Path) -> None:
    """Removes an artefact or what is left of one; interrupted, it leaves no part of its name."""
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    folder.replace(partial)
    shutil.rmtree(partial)


def remove_partial(directory: Path) -> None:
    """Removes what `writing` and `remove` left in a directory when they were interrupted."""
    for partial in directory.glob(_PARTIAL.format("*")):
        shutil.rmtree(partial)


def _partial(folder: Path) -> Path:
    """Returns the folder that is renamed to, or from, an artefact; a sibling, so no data moves."""
    return folder.with_name(_PARTIAL.format(folder.name))


def seal(folder: Path) -> None:
    """Writes the list of all files in a folder and its subfolders."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LIST)
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(_checksum, files)
        listed = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": checksum}
            for path, checksum in zip(files, sums, strict=True)
        }
    write_whole(folder / LIST, json.dumps({"files": listed}, indent=2) + "\n")


def is_sealed(folder: Path) -> bool:
    """Returns whether the folder has a list, which is not read."""
    return os.path.lexists(folder / LIST)


def is_done(folder: Path) -> bool:
    """Returns whether an artefact is there and its files have the listed sizes.

    Raises:
        InputError: The artefact is there, but not complete or damaged.
    """
    if not os.path.lexists(folder):
        return False
    _check_sizes(folder, _read_list(folder, AGAIN), AGAIN)
    return True


@contextlib.contextmanager
def reading(folder: Path, *, mend: str = AGAIN) -> Iterator[None]:
    """Verifies an artefact, or a folder within one, while the block reads it.

    Small files are verified before the block. Several processes share the large files.

    Args:
        folder: Folder that the block reads.
        mend: Remedy for a damaged artefact, for the error.

    Raises:
        InputError: The artefact is missing, not complete or damaged. This error replaces any that
            the block raises.
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

        def compare(checksums: dict[str, Future[str]]) -> None:
            for name, checksum in checksums.items():
                with refusing(home / name, mend):
                    if checksum.result() != wanted[name][1]:
                        raise InputError(
                            f"{home / name}: is damaged: its bytes have changed since it was"
                            f" written; {mend}"
                        )

        compare(begin(small))
        beside = begin(large[jax.process_index() :: jax.process_count()])
        try:
            yield
        except Exception:
            compare(beside)  # a damaged file is the cause to report
            raise
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        compare(beside)


def _read_list(folder: Path, mend: str) -> dict[str, tuple[int, str]]:
    """Returns the sizes in bytes and the checksums of an artefact's files, by relative path."""
    if not os.path.lexists(folder):
        raise InputError(f"{folder} is missing: run the stage that writes it first")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, but a stage writes a folder here; {mend}")
    if not is_sealed(folder):
        raise InputError(
            f"{folder}: is not complete, or of an earlier version ({LIST} is missing); {mend}"
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
            status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise InputError(
                f"{path}: is damaged: it has {status.st_size:,} bytes, but {size:,} were written;"
                f" {mend}"
            )


def _checksum(path: Path) -> str:
    total, buffer = 0, bytearray(_PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total = zlib.crc32(view[:count], total)
    return f"{total:08x}"
