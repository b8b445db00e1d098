"""What a run found: `results.json`, updated entry by entry, and the lines it is made of."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.processes import is_first


def read_results(workdir: Path) -> dict[str, Any]:
    """The results so far; empty before there are any."""
    path = workdir / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def update_results(workdir: Path, entry: str, values: Any) -> None:
    """Merges `values` into one entry (or sets it, if they are no dict), atomically.

    With several processes the first one does.
    """
    if not is_first():
        return
    results = read_results(workdir)
    if isinstance(values, dict):
        values = {**results.get(entry, {}), **values}
    results[entry] = values
    write_json(workdir / "results.json", results)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all, where this is the first process."""
    if is_first():
        write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all; its folder is made, an older one replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def read_lines(
    path: Path,
    read: Callable[[str], dict[str, Any]] = json.loads,
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
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            lines.append(read(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}, line {number}: {type(error).__name__} {error}; {mend}"
            ) from error
    return lines
