"""The results of a run: `results.json`, updated entry by entry."""

import os
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import read_json, write_json
from mmunlearner_jax.processes import is_first

MEND = "restore it, or remove it and run the stages evaluate and unlearn again"


def read_results(workdir: Path) -> dict[str, Any]:
    """Returns the results so far; empty if there are none.

    Raises:
        InputError: The file is damaged, or an entry has a type that no stage writes.
    """
    path = workdir / "results.json"
    if not os.path.lexists(path):
        return {}
    results = read_json(path, mend=MEND)
    for entry, value in results.items():
        kind = int if entry == "seed" else dict
        if not isinstance(value, kind):
            raise InputError(
                f"{path}: {entry} is {type(value).__name__}, not {kind.__name__}; {MEND}"
            )
    try:
        _check_scores(results, "")
    except TypeError as error:
        raise InputError(f"{path}: {error}; {MEND}") from None
    return results


def _check_scores(entries: Any, place: str) -> None:
    """Raises TypeError if part of a score, at any depth, is not a number."""
    for name, value in entries.items():
        here = f"{place}.{name}".lstrip(".")
        if isinstance(value, dict):
            _check_scores(value, here)
        elif name == "ci95":
            if not isinstance(value, list) or [*map(_is_number, value)] != [True, True]:
                raise TypeError(f"{shown(here)} is {shown(value)}, not two numbers")
        elif name in _NUMBERS or place.endswith("by_block"):
            if not _is_number(value):
                raise TypeError(f"{shown(here)} is {shown(value)}, not a number")


_NUMBERS = "value", "n", "p_value"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def update_results(workdir: Path, entry: str, values: Any) -> None:
    """Merges a dict into one entry, or sets the entry to any other value, atomically.

    With several processes, only the first one writes.

    Args:
        workdir: Folder of the run.
        entry: Name of the entry.
        values: What to merge or to set.
    """
    if not is_first():
        return
    results = read_results(workdir)
    if isinstance(values, dict):
        values = {**results.get(entry, {}), **values}
    results[entry] = values
    write_json(workdir / "results.json", results)
