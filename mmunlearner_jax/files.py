"""Files of text and JSON: read with limits, and written as a whole or not at all."""

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
MOST_DEEP = 64  # levels of nested lists and objects


def read_bytes(path: Path, *, mend: str, most: int = MOST_BYTES) -> bytes:
    """Reads a regular file from an untrusted source.

    Args:
        path: The file, or a symbolic link to it, as in the hub's cache.
        mend: Remedy for a file that cannot be read, for the error.
        most: Largest size in bytes.

    Raises:
        InputError: The file is missing, not regular (a pipe would block, a device may never end),
            too large or unreadable.
    """
    with refusing(path, mend):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not a regular file; {mend}")
        if status.st_size > most:
            raise InputError(f"{path}: has {status.st_size:,} bytes, above {most:,}; {mend}")
        return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: The text is not JSON or not UTF-8, holds a number that is not finite (NaN,
            1e999), or is nested deeper than `MOST_DEEP`.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"the number {digits} is not finite")
        return value

    try:
        value = json.loads(text, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(MOST_DEEP):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError("nested too deeply")
    return value


def _inside(value: Any) -> Iterable[Any]:
    """Returns the lists and objects that are members of a list or an object."""
    members = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return [member for member in members if isinstance(member, dict | list)]


def read_json_value(path: Path, *, mend: str = "restore it") -> Any:
    """Reads a file that holds one JSON value of any kind.

    Args:
        path: The file.
        mend: Remedy for a file that cannot be read, for the error.

    Raises:
        InputError: As for `read_bytes`, or the file holds no JSON.
    """
    content = read_bytes(path, mend=mend)
    try:
        return parse_json(content)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({in_words(error)}); {mend}") from None


def read_json(path: Path, *, mend: str = "restore it") -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        path: The file.
        mend: Remedy for a file that cannot be read, for the error.

    Raises:
        InputError: As for `read_json_value`, or the value is no object.
    """
    value = read_json_value(path, mend=mend)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}, not a JSON object; {mend}")
    return value


def read_lines(
    path: Path,
    read: Callable[[str], dict[str, Any]] = parse_json,
    *,
    mend: str = "restore it, or run everything in a new workdir",
    growing: bool = False,
) -> list[dict[str, Any]]:
    """Returns the lines of a JSONL file.

    Args:
        path: The file.
        read: Parses the text of a line.
        mend: Remedy for a line that cannot be read, for the error.
        growing: Whether to leave out a last line without line end, which a killed run was writing.

    Raises:
        InputError: The file is missing, or a line cannot be read; the first such line is named.
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
            kind, reason = type(error).__name__, shown(error)
            raise InputError(f"{path}, line {number}: {kind} ({reason}); {mend}") from error
    return lines


def expanded(text: str) -> Path:
    """Returns the path of a flag's value, which may begin with `~`.

    Raises:
        InputError: The user after `~` does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: {in_words(error)}; give the whole path") from None


def plain(path: Path) -> Path:
    """Returns the absolute path, if every library reads it literally.

    Raises:
        InputError: A library would read some of its characters as a pattern (Orbax would find no
            array, or those of another folder) or as an address, or cannot encode them.
    """
    whole = str(path.absolute())
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in whole):
        why = "has a control character, or bytes that are not UTF-8"
    elif special := sorted(_SPECIAL & {*whole}):
        why = f"has {' '.join(special)}, which stands for other characters in a pattern"
    elif re.search(r"/[a-z0-9]+:/", whole):
        why = "has a folder whose name ends in a colon, like an address"
    else:
        return path.absolute()
    raise InputError(f"{shown(whole, 300)}: {why}; give a folder with another name")


_SPECIAL = frozenset("*?[\\")


def system_fault(error: BaseException, place: Path) -> InputError | None:
    """Returns an error of one line if an error of the operating system is the cause.

    Args:
        error: The exception; its causes and contexts are searched, too.
        place: Folder that the program writes to, for an error that names no file.

    Returns:
        The error, or None if the operating system raised none.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        if (it := waiting.pop()) in seen:
            continue
        seen.append(it)
        inside = it.exceptions if isinstance(it, BaseExceptionGroup) else ()
        waiting += [e for e in (it.__context__, it.__cause__, *inside) if e is not None]
        text = str(it)
        number = it.errno if isinstance(it, OSError) else None
        # Libraries in C++ and Rust give only the text of the error.
        number = number or next((n for n in _MENDS if os.strerror(n) in text), None)
        if number is not None:
            file = getattr(it, "filename", None) or place
            mend = _MENDS.get(number, "correct that, then run the same command again to go on")
            return InputError(f"{shown(file, 300)}: {os.strerror(number)}; {mend}")
    return None


_ROOM = "free some room there, then run the same command again to go on"
_RIGHTS = "make it writable, or give another --workdir"
_DISK = "check the disk, then run the same command again to go on"
_MENDS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE), _DISK),
    errno.EMFILE: "allow more open files (ulimit -n), then run the same command again to go on",
}


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file as a whole or not at all, if this is the first process.

    Raises:
        ValueError: A number is not finite, which JSON does not allow.
    """
    if is_first():
        write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole or not at all; makes its folder and replaces an older file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # a full disk may raise only here
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # an error of a write names no file
        raise
