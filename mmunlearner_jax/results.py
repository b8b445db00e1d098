"""What a run found: `results.json`, updated entry by entry."""

from pathlib import Path
from typing import Any

from mmunlearner_jax.files import read_json, write_json
from mmunlearner_jax.processes import is_first


def read_results(workdir: Path) -> dict[str, Any]:
    """The results so far; empty before there are any.

    Raises:
        InputError: the file is damaged.
    """
    path = workdir / "results.json"
    mend = "restore it, or remove it and run the stages evaluate and unlearn again"
    return read_json(path, mend=mend) if path.exists() else {}


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
