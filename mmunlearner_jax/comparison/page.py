"""The report of a comparison: the table in the terminal, `report.html`, `results.csv`, Markdown."""

import csv
import io
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mmunlearner_jax.comparison import figures, statistics
from mmunlearner_jax.comparison.answers import forgotten_person
from mmunlearner_jax.comparison.cells import Cell, is_control, label, missing, names
from mmunlearner_jax.comparison.measures import measure
from mmunlearner_jax.comparison.statistics import Estimate, verdict
from mmunlearner_jax.comparison.summary import Comparison
from mmunlearner_jax.comparison.tradeoff import trade_off
from mmunlearner_jax.errors import refusing, shown
from mmunlearner_jax.evaluation.selection import KEPT
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.stages.report import ASKED, environment

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


def write_report(workdir: Path, *, markdown: Path | None = None, command: str) -> None:
    """Writes `report.html` and `results.csv` of what was compared, and prints the main result.

    Args:
        workdir: of the comparison; holds `seed-S/forget-R/`.
        markdown: file to write the tables to, with its figures beside it; None: none.
        command: that made the comparison, for the pages to name.

    Raises:
        InputError: there is nothing to read, or a file of a variant is missing.
    """
    page = workdir / "report.html"
    mend = "restore the damaged file of a cell, or remove the cell and compare again"
    with refusing(workdir, mend):
        found = Comparison(workdir)
        html = render(found, command)
    write_whole(page, html)
    write_csv(found.cells, workdir / "results.csv")
    if markdown is not None:
        write_markdown(found, markdown, command)
    console = Console(markup=False, emoji=False)  # brackets in a path are brackets
    print_result(console, found)
    console.print(f"Report: {shown(page, 4096)}", soft_wrap=True)


def print_result(console: Console, found: Comparison) -> None:
    """Prints a table per ratio, what is missing, and what the mask does."""
    for ratio in found.ratios:
        table = Table(title=f"{ratio} % forgotten, % right, mean over seeds ± half of 95 % t")
        table.add_column("", overflow="fold")
        for head in ("forget VQA", "test VQA", "mean kept"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("MMUnlearner", no_wrap=True)
        for row in found.rows[ratio]:
            faces = [row.accuracies.get(kind) for kind in ASKED if ASKED[kind].falls]
            cells = [plus_minus(mean) for mean in (*faces, row.kept)]
            table.add_row(row.label, *cells, row.outcome if row.advantages else "")
        console.print(table)
    for lack in missing(found.cells):
        console.print(f"Missing: {lack}", soft_wrap=True)
    console.print(found.mask_verdict())


def plus_minus(found: Estimate | None) -> str:
    """A mean in percent and half of its t interval, e.g. "97.5 ± 2.1"; without it for one seed."""
    if found is None:
        return ""
    half = f" ± {100 * (found.t['ci95'][1] - found.value):.1f}" if found.t else ""
    return f"{100 * found.value:.1f}{half}"


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "\u2212")


def span(score: statistics.Score) -> str:
    """The 95 % interval of a difference in points."""
    low, high = score["ci95"]
    return f"{points(low)} to {points(high)}"


def context(found: Comparison, command: str) -> dict[str, Any]:
    """What both templates take."""
    return {
        "found": found,
        "command": command,
        "where": (
            f"{os.cpu_count()} {jax.default_backend()} cores ({platform.machine()}), Python"
            f" {platform.python_version()}, jax {jax.__version__}"
        ),
        "missing": missing(found.cells),
        "asked": ASKED,
        "label": label,
        "verdict": verdict,
        "plus_minus": plus_minus,
        "points": points,
        "span": span,
        "counts": {
            ratio: {
                kind: max(
                    (row.accuracies[kind].n for row in rows if kind in row.accuracies), default=0
                )
                for kind in found.kinds
            }
            for ratio, rows in found.rows.items()
        },
        "kept": [ASKED[kind].label for kind in KEPT if kind in found.kinds],
        "resists": statistics.RESISTS,
    }


def render(found: Comparison, command: str) -> str:
    """The page, as HTML that needs nothing beside it."""
    blocks = found.blocks(found.middle)
    person = forgotten_person(found.at(found.middle))
    compared = [ratio for ratio, rows in found.rows.items() if any(row.rival for row in rows)]
    return (
        environment()
        .get_template("comparison/comparison.html.j2")
        .render(
            **context(found, command),
            trade_off=figures.data_uri(trade_off(found, found.middle)),
            differences={r: figures.data_uri(figures.differences(found, r)) for r in compared},
            grid_points=figures.data_uri(figures.grid_points(found, found.middle)),
            densities=figures.data_uri(figures.densities(blocks)) if any(blocks.values()) else "",
            person=person,
            people={ratio: statistics.by_person(found.at(ratio)) for ratio in found.ratios},
        )
    )


def write_markdown(found: Comparison, path: Path, command: str) -> None:
    """Writes the verdict and the tables, and two figures beside them: `NAME-tradeoff.svg` ..."""
    drawn = {
        "tradeoff": trade_off(found, found.middle),
        "points": figures.grid_points(found, found.middle),
    }
    for name, figure in drawn.items():
        write_whole(path.with_name(f"{path.stem}-{name}.svg"), figures.svg(figure))
    text = (
        environment()
        .get_template("comparison/comparison.md.j2")
        .render(**context(found, command), stem=path.stem)
    )
    write_whole(path, text + "\n")


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
