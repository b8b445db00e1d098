"""`results.json`: what a run found, updated entry by entry."""

import json
import os
from pathlib import Path
from typing import Any

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
    path = workdir / "results.json"
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    os.replace(partial, path)
