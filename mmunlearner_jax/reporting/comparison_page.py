"""The report of a comparison: the table in the terminal, `report.html`, `results.csv`, Markdown."""

import os
import platform
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from mmunlearner_jax.comparison import estimates
from mmunlearner_jax.comparison.answers import forgotten_person
from mmunlearner_jax.comparison.cells import label, missing
from mmunlearner_jax.comparison.estimates import verdict
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.errors import refusing, shown
from mmunlearner_jax.evaluation.kinds import ASKED
from mmunlearner_jax.evaluation.scores import Score
from mmunlearner_jax.evaluation.selection import KEPT
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.reporting import comparison_figures, figures
from mmunlearner_jax.reporting.comparison_csv import write_csv
from mmunlearner_jax.reporting.comparison_table import plus_minus, print_result
from mmunlearner_jax.reporting.templates import environment
from mmunlearner_jax.reporting.tradeoff import trade_off


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


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "\u2212")


def span(score: Score) -> str:
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
        "resists": estimates.RESISTS,
    }


def render(found: Comparison, command: str) -> str:
    """The page, as HTML that needs nothing beside it."""
    blocks = found.blocks(found.middle)
    person = forgotten_person(found.at(found.middle))
    compared = [ratio for ratio, rows in found.rows.items() if any(row.rival for row in rows)]
    return (
        environment()
        .get_template("reporting/comparison.html.j2")
        .render(
            **context(found, command),
            trade_off=figures.data_uri(trade_off(found, found.middle)),
            differences={
                r: figures.data_uri(comparison_figures.differences(found, r)) for r in compared
            },
            grid_points=figures.data_uri(comparison_figures.grid_points(found, found.middle)),
            densities=figures.data_uri(figures.densities(blocks)) if any(blocks.values()) else "",
            person=person,
            people={ratio: estimates.by_person(found.at(ratio)) for ratio in found.ratios},
        )
    )


def write_markdown(found: Comparison, path: Path, command: str) -> None:
    """Writes the verdict and the tables, and two figures beside them: `NAME-tradeoff.svg` ..."""
    drawn = {
        "tradeoff": trade_off(found, found.middle),
        "points": comparison_figures.grid_points(found, found.middle),
    }
    for name, figure in drawn.items():
        write_whole(path.with_name(f"{path.stem}-{name}.svg"), figures.svg(figure))
    text = (
        environment()
        .get_template("reporting/comparison.md.j2")
        .render(**context(found, command), stem=path.stem)
    )
    write_whole(path, text + "\n")
