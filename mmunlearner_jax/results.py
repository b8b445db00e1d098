"""What a run found: `results.json`, updated entry by entry."""

import os
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import read_json, write_json
from mmunlearner_jax.processes import is_first

MEND = "restore it, or remove it and run the stages evaluate and unlearn again"


def read_results(workdir: Path) -> dict[str, Any]:
    """The results so far; empty before there are any.

    Raises:
        InputError: The file is damaged, or an entry is of another type than stages write.
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


def _check_scores(found: Any, place: str) -> None:
    """Raises TypeError where a score's parts are no numbers, at any depth."""
    for name, value in found.items():
        here = f"{place}.{name}".lstrip(".")
        if isinstance(value, dict):
            _check_scores(value, here)
        elif name == "ci95":
            if not isinstance(value, list) or [*map(_is_number, value)] != [True, True]:
                raise TypeError(f"{shown(here)} is {shown(value)}, not two numbers")
        elif name in _NUMBERS or place.endswith("by_block"):
            if not _is_number(value):
                raise TypeError(f"{shown(here)} is {shown(value)}, no number")


_NUMBERS = "value", "n", "p_value"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
