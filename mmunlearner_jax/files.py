"""Files of text and JSON: read with limits, written whole or not at all."""

import errno
import json
import math
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, in_words, refusing, shown
from mmunlearner_jax.processes import is_first

# A tokenizer.json, the largest JSON file of a checkpoint, has about 30 MB.
MOST_BYTES = 256 * 2**20
MOST_DEEP = 64  # lists and objects within one another


def read_bytes(path: Path, *, mend: str, most: int = MOST_BYTES) -> bytes:
    """Reads a regular file that may be a stranger's.

    Args:
        path: Of the file; it may be a symbolic link, as in the hub's cache.
        mend: What to do where it cannot be read, for the error.
        most: Bytes that it may have.

    Raises:
        InputError: It is missing, no regular file (a pipe would block, a device may never end), too
            large or unreadable.
    """
    with refusing(path, mend):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: is no regular file; {mend}")
        if found.st_size > most:
            raise InputError(f"{path}: has {found.st_size:,} bytes, above {most:,}; {mend}")
        return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: It is no JSON, no UTF-8, holds a number that is not finite (NaN, 1e999), or
            nests deeper than `MOST_DEEP`.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits} is no finite number")
        return value

    try:
        value = json.loads(text, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [value]
    for _ in range(MOST_DEEP):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError("nested too deep")
    return value


def _inside(value: Any) -> Iterable[Any]:
    """The lists and objects within a list or an object."""
    members = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return [member for member in members if isinstance(member, dict | list)]


def read_json(path: Path, *, mend: str = "restore it") -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        path: Of the file.
        mend: What to do where it cannot be read, for the error.

    Raises:
        InputError: As `read_bytes`, or it holds no JSON object.
    """
    content = read_bytes(path, mend=mend)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({in_words(error)}); {mend}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}, no JSON object; {mend}")
    return value


def read_lines(
    path: Path,
    read: Callable[[str], dict[str, Any]] = parse_json,
    *,
    mend: str = "restore it, or run everything in a new workdir",
    growing: bool = False,
) -> list[dict[str, Any]]:
    """The lines of a JSONL file.

    Args:
        path: Of the file.
        read: Makes a line of its text.
        mend: What to do where one cannot be read, for the error.
        growing: A last line without its end was being written when a run was killed: it is left
            out.

    Raises:
        InputError: The file is missing, or names the first line that cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path}: is missing; {mend}")
    lines = []
    texts = read_bytes(path, mend=mend, most=2**40).split(b"\n")
    for number, text in enumerate(texts[:-1] if growing else texts, start=1):
        if not text:
            continue
        try:
            lines.append(read(text.decode()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            kind, said = type(error).__name__, shown(error)
            raise InputError(f"{path}, line {number}: {kind} ({said}); {mend}") from error
    return lines


def expanded(text: str) -> Path:
    """The path that a flag gives, which may begin with `~`.

    Raises:
        InputError: There is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: {in_words(error)}; give the whole path") from None


def plain(path: Path) -> Path:
    """An absolute path that every library takes for what it is.

    Raises:
        InputError: One reads some of its characters as a pattern (Orbax would find no array, or
            those of another folder), as an address, or cannot encode them.
    """
    whole = str(path.absolute())
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in whole):
        why = "has a control character, or bytes that are not UTF-8"
    elif found := sorted(_SPECIAL & {*whole}):
        why = f"has {' '.join(found)}, which stands for other characters in a pattern"
    elif re.search(r"/[a-z0-9]+:/", whole):
        why = "has a folder whose name ends in a colon, like an address"
    else:
        return path.absolute()
    raise InputError(f"{shown(whole, 300)}: {why}; give a folder with another name")


_SPECIAL = frozenset("*?[\\")


def system_fault(error: BaseException, place: Path) -> InputError | None:
    """The line for what the operating system refused, wherever a library hides it.

    Args:
        error: What was raised; what it was raised from is looked at, too.
        place: Where the program writes, for what names no file.

    Returns:
        None where the system is not to blame.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        if (it := waiting.pop()) in seen:
            continue
        seen.append(it)
        inside = it.exceptions if isinstance(it, BaseExceptionGroup) else ()
        waiting += [e for e in (it.__context__, it.__cause__, *inside) if e is not None]
        said = str(it)
        number = it.errno if isinstance(it, OSError) else None
        # Libraries of C++ and Rust tell of it in words.
        number = number or next((n for n in _MENDS if os.strerror(n) in said), None)
        if number is not None:
            file = getattr(it, "filename", None) or place
            mend = _MENDS.get(number, "mend that and run the same command again: it goes on")
            return InputError(f"{shown(file, 300)}: {os.strerror(number)}; {mend}")
    return None


_ROOM = "free some room there and run the same command again: it goes on"
_RIGHTS = "make it writable, or give another --workdir"
_DISK = "check the disk, then run the same command again: it goes on"
_MENDS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE), _DISK),
    errno.EMFILE: "allow more open files (ulimit -n) and run the same command again: it goes on",
}


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all, where this is the first process.

    Raises:
        ValueError: A number is not finite: JSON cannot say it, and nobody should read it.
    """
    if is_first():
        write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; its folder is made, an older one replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # a full disk may tell only now
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write names none
        raise
