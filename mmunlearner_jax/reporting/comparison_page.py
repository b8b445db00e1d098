"""The report of a comparison: the table in the terminal, `report.html`, `results.csv`, Markdown."""

from pathlib import Path
from typing import Any

from rich.console import Console

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.comparison import estimates
from mmunlearner_jax.comparison.answers import forgotten_person
from mmunlearner_jax.comparison.cells import missing
from mmunlearner_jax.comparison.effects import Effect
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.errors import refusing, shown
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.machine import machine
from mmunlearner_jax.reporting import browser, comparison_figures, figures
from mmunlearner_jax.reporting.comparison_csv import write_csv
from mmunlearner_jax.reporting.comparison_table import (
    p_value,
    plus_minus,
    print_result,
    whole,
)
from mmunlearner_jax.reporting.relearning_figure import relearning
from mmunlearner_jax.reporting.templates import environment, points
from mmunlearner_jax.reporting.terms import TERMS
from mmunlearner_jax.reporting.verdicts import MARKS


def write_report(workdir: Path, *, markdown: Path | None = None, command: str) -> None:
    """Writes `report.html` and `results.csv` of what was compared, and prints the main result.

    Args:
        workdir: Workdir of the comparison; holds `seed-S/forget-R/`.
        markdown: File to write the result to, with its figures beside it; None: none.
        command: Command that made the comparison, for the pages to name.

    Raises:
        InputError: There is nothing to read, or a file of a variant is missing.
    """
    page = workdir / "report.html"
    mend = "restore the damaged file of a cell, or remove the cell and compare again"
    with refusing(workdir, mend):
        comparison = Comparison(workdir)
        html = render(comparison, command)
    write_whole(page, html)
    write_csv(comparison.cells, workdir / "results.csv")
    if markdown is not None:
        write_markdown(comparison, markdown, command)
    console = Console(markup=False, emoji=False)  # brackets in a path are brackets
    print_result(console, comparison)
    console.print(f"Report: {shown(page, 4096)}", soft_wrap=True)


def span(effect: Effect) -> str:
    """Writes the 95 % interval of a difference in points, e.g. "−0.5 to +2.9"; "" without one."""
    interval = effect.interval()
    return f"{points(interval[0])} to {points(interval[1])}" if interval else ""


def context(comparison: Comparison, command: str) -> dict[str, Any]:
    """Returns what both templates take."""
    return {
        "comparison": comparison,
        "command": command,
        "where": machine(),
        "missing": missing(comparison.cells),
        "attacks": {name: attack.label for name, attack in ATTACKS.items()},
        "plus_minus": plus_minus,
        "whole": whole,
        "p_value": p_value,
        "span": span,
        "resists": estimates.RESISTS,
    }


def render(comparison: Comparison, command: str) -> str:
    """Returns the page as HTML that needs nothing beside it."""
    middle = comparison.middle
    blocks = comparison.blocks(middle)
    densities = figures.densities(blocks) if any(blocks.values()) else None
    return (
        environment()
        .get_template("reporting/comparison.html.j2")
        .render(
            **context(comparison, command),
            policy=browser.content_policy(),
            explained=TERMS,
            marks=MARKS,
            paths=figures.inline(comparison_figures.paths(comparison, middle), "paths"),
            shares=figures.inline(comparison_figures.shares(comparison, middle), "shares"),
            returning=figures.inline(comparison_figures.returning(comparison, middle), "returning"),
            relearned=figures.inline(relearning(comparison, middle), "relearned"),
            contrasts={
                ratio: figures.inline(comparison_figures.contrasts(findings), f"contrasts{ratio}")
                for ratio, findings in comparison.findings.items()
                if any(finding.effect for finding in findings)
            },
            densities=figures.inline(densities, "densities"),
            person=forgotten_person(comparison.at(middle)),
            people={
                ratio: estimates.by_person(comparison.at(ratio)) for ratio in comparison.ratios
            },
        )
    )


def write_markdown(comparison: Comparison, path: Path, command: str) -> None:
    """Writes the result on one screen, with its figures `NAME-paths.svg`, ... beside it."""
    drawn = {
        "paths": comparison_figures.paths(comparison, comparison.middle),
        "shares": comparison_figures.shares(comparison, comparison.middle),
        "returning": comparison_figures.returning(comparison, comparison.middle),
        "relearning": relearning(comparison, comparison.middle),
    }
    there = {name: figure for name, figure in drawn.items() if figure}
    for name, figure in there.items():
        write_whole(path.with_name(f"{path.stem}-{name}.svg"), figures.svg(figure))
    text = (
        environment()
        .get_template("reporting/comparison.md.j2")
        .render(**context(comparison, command), stem=path.stem, drawn=there)
    )
    write_whole(path, text + "\n")
