"""Files of text and JSON: read with limits, written whole or not at all."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, in_words, refusing
from mmunlearner_jax.processes import is_first

# A tokenizer.json, the largest JSON file of a checkpoint, has about 30 MB.
MOST_BYTES = 256 * 2**20


def read_bytes(path: Path, *, mend: str, most: int = MOST_BYTES) -> bytes:
    """Reads a regular file that may be a stranger's.

    Args:
        path: of the file; it may be a symbolic link, as in the hub's cache.
        mend: what to do where it cannot be read, for the error.
        most: bytes that it may have.

    Raises:
        InputError: it is missing, no regular file (a pipe would block, a device may never end), too
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
    """Parses JSON; NaN and Infinity, which JSON does not have, are refused.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested deeper than Python can follow.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(path: Path, *, mend: str = "restore it") -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        path: of the file.
        mend: what to do where it cannot be read, for the error.

    Raises:
        InputError: as `read_bytes`, or it holds no JSON object.
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
) -> list[dict[str, Any]]:
    """The lines of a JSONL file.

    Args:
        path: of the file.
        read: makes a line of its text.
        mend: what to do where one cannot be read, for the error.

    Raises:
        InputError: the file is missing, or names the first line that cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path}: is missing; {mend}")
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not text:
            continue
        try:
            lines.append(read(text.decode()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: {in_words(error)}; {mend}") from error
    return lines


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all, where this is the first process.

    Raises:
        ValueError: a number is not finite: JSON cannot say it, and nobody should read it.
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
    except OSError:
        partial.unlink(missing_ok=True)
        raise
