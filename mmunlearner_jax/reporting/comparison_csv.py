"""Every number of a comparison, as `results.csv`."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmunlearner_jax.comparison.cells import Cell, names
from mmunlearner_jax.comparison.examiner import overall
from mmunlearner_jax.comparison.findings import LEVELS
from mmunlearner_jax.comparison.jobs import REFERENCES
from mmunlearner_jax.comparison.measures import measure
from mmunlearner_jax.comparison.runs import RELEARNED, relearned_level
from mmunlearner_jax.evaluation.kinds import OPEN
from mmunlearner_jax.files import write_whole

COLUMNS: tuple[str, ...] = (
    "ratio",
    "seed",
    "variant",
    "method",
    "control",
    "learning_rate",
    "level",
    "forget_steps",
    "kind",
    "metric",
    "value",
    "n",
)
# What is written of a variant as a whole, in rows without kind.
WHOLE = ("kept", "left", "reached", "seconds", "density", "perplexity", "plain_perplexity")


def write_csv(cells: list[Cell], path: Path) -> None:
    """Writes every number of every variant, a row each; fractions are in 0 to 1.

    `level` says which model was asked: at a level of forgetting, at the `end` of the run, or at a
    `look` at the questions set apart.
    """
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
        "control": variant.get("control", False),
        "learning_rate": variant["learning_rate"],
    }
    matched = variant.get("matched", {})
    ends = ("end", *map(relearned_level, map(int, variant.get(RELEARNED, ()))))
    levels = ends if name in REFERENCES else (*LEVELS, *ends)
    for level in levels:
        steps = matched.get(level, variant.get("unlearn", {})).get("forget_steps")
        of = {**about, "level": level, "forget_steps": steps}
        for kind, people in (cell.accuracies(name, level) or {}).items():
            value, n = overall(people)
            metric = "right" if kind.endswith(OPEN) else "classification"
            yield {**of, "kind": kind, "metric": metric, "value": value, "n": n}
    for look in variant.get("path", ()):
        of = {**about, "level": "look", "forget_steps": look["forget_steps"]}
        for kind, value in look["accuracies"].items():
            yield {**of, "kind": kind, "metric": "classification", "value": value}
        for mask, share in look.get("shares", {}).items():
            yield {**of, "metric": f"squared gradients within {mask}", "value": share}
    measured = measure(cell, name)
    for kind, means in measured.means.items():
        of = {**about, "level": "end", "kind": "/".join(kind)}
        for metric, (value, n) in means.items():
            yield {**of, "metric": metric, "value": value, "n": n}
        if sign := measured.decay.get(kind):
            for metric in ("empty", "repeated", "gibberish", "refused"):
                yield {**of, "metric": metric, "value": getattr(sign, metric), "n": sign.n}
    for metric in WHOLE:
        if variant.get(metric) is not None:
            yield {**about, "metric": metric, "value": float(variant[metric])}
