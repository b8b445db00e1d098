"""Every number of a comparison, as `results.csv`."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmunlearner_jax.comparison.cells import Cell, is_control, names
from mmunlearner_jax.comparison.measures import measure
from mmunlearner_jax.files import write_whole

COLUMNS: tuple[str, ...] = (
    "ratio",
    "seed",
    "variant",
    "method",
    "control",
    "split",
    "modality",
    "metric",
    "value",
    "n",
    "learning_rate",
    "forget_steps",
)
# What is written of a variant as a whole, in rows without split.
WHOLE = ("seconds", "density", "perplexity")


def write_csv(cells: list[Cell], path: Path) -> None:
    """Writes every number of every variant, a row each; fractions are in 0 to 1."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        for name in names([cell]):
            writer.writerows(_rows(cell, name))
    write_whole(path, table.getvalue())


def _rows(cell: Cell, name: str) -> Iterator[dict[str, Any]]:
    variant = cell.variants[name]
    about = {
        "ratio": cell.ratio,
        "seed": cell.seed,
        "variant": name,
        "method": variant["method"],
        "control": is_control([cell], name),
        "learning_rate": variant["learning_rate"],
        "forget_steps": variant.get("unlearn", {}).get("forget_steps"),
    }
    found = measure(cell, name)
    for (split, modality), means in found.means.items():
        of = {**about, "split": split, "modality": modality}
        for metric, (value, n) in means.items():
            yield {**of, "metric": metric, "value": value, "n": n}
        if sign := found.decay.get((split, modality)):
            for metric in ("empty", "repeated", "gibberish", "refused"):
                yield {**of, "metric": metric, "value": getattr(sign, metric), "n": sign.n}
    for metric in WHOLE:
        if variant.get(metric) is not None:
            yield {**about, "metric": metric, "value": variant[metric]}
