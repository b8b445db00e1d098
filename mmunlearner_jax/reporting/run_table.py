"""The results of a run as tables in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.errors import shown
from mmunlearner_jax.reporting.run_results import (
    choice_score,
    control_runs,
    mask_verdict,
    rows,
    run_kinds,
)
from mmunlearner_jax.reporting.templates import interval, percent, points
from mmunlearner_jax.reporting.verdicts import AIMS, MARKS, judgement


def print_results(console: Console, results: Mapping[str, Any], bars: ReportConfig) -> None:
    """Prints a row for each split, modality and metric, the verdicts, then the controls.

    Args:
        console: Where to print.
        results: Content of `results.json`.
        bars: Bars of the verdicts.
    """
    title = f"Before and after unlearning, seed {shown(results['seed'], 20)}"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))  # fits into 80 columns
    for name, least in (("split", 11), ("", 3), ("metric", 14)):
        table.add_column(name, overflow="fold", min_width=least)
    for name in ("before → after", "n", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=11)
    judged = rows(results, bars)
    for row in judged:
        change = f"{percent(row.before['value'])} → {percent(row.after['value'])}"
        cells = (row.split, row.modality.upper(), row.metric, change)
        verdict = f"{MARKS[row.verdict.grade]} {row.verdict.words}"
        table.add_row(*cells, str(row.after["n"]), interval(row.after), verdict)
    console.print(table)
    for falls, aim in AIMS.items():
        it = judgement(judged, falls=falls)
        count = f" ({it.met} of {len(it.rows)} bars met)" if it.rows else ""
        console.print(f"{aim}: {MARKS[it.grade]} {it.words}{count}")
    if "model_utility" in results:
        before, after = (results["model_utility"][when] for when in ("before", "after"))
        change = f"{percent(before['value'])} → {percent(after['value'])} ({interval(after)})"
        console.print(f"Model utility: {change}")
    for task, test in results.get("forget_quality", {}).get("after", {}).items():
        console.print(
            f"Forget quality, {shown(task, 40)}: p = {test['p_value']:.2g}, n = {test['n']}"
        )
    if "both_modalities" in results:
        console.print(_both(results["both_modalities"]))
    if changes := results.get("general", {}).get("change"):
        console.print(_general(changes))
    controls = control_runs(results)
    if not controls:
        return
    table = Table(title="Multiple choice by run, with 95 % intervals", leading=1)
    table.add_column("", no_wrap=True)
    for name in controls:
        table.add_column(shown(name, 40).replace("_", " "), justify="right", min_width=7)
    kinds = run_kinds(results)
    for kind in kinds:
        scores = [choice_score(scores, kind) for scores in controls.values()]
        if any(scores):
            cells = [f"{percent(s['value'])}\n{_whole(*s['ci95'])}" if s else "" for s in scores]
            table.add_row(f"{kind[0]} {kind[1].upper()}", *cells)
    console.print(table)
    console.print(mask_verdict(results["after"], results["controls"], kinds))


def _both(scores: Mapping[str, Any]) -> Table:
    """Returns a table of the facts that are right, or wrong, about pictures and in words."""
    table = Table(title="Facts asked both ways")
    for name in ("split", "task", "", "before → after", "n"):
        table.add_column(name, overflow="fold")
    for split, tasks in scores["after"].items():
        for task, measures in tasks.items():
            for name, after in measures.items():
                before = scores["before"][split][task][name]
                change = f"{percent(before['value'])} → {percent(after['value'])}"
                cells = (*(shown(x, 40) for x in (split, task, name)), change)
                table.add_row(*cells, str(after["n"]))
    return table


def _general(changes: Mapping[str, Any]) -> Table:
    """Returns a table of the changes of general ability, paired by question."""
    table = Table(title="General ability: after minus before, the same questions")
    for name in ("set", "change", "95 % interval", "n", "lost", "gained"):
        table.add_column(name, justify="left" if name == "set" else "right", no_wrap=True)
    for name, change in changes.items():
        numbers = (str(change[x]) for x in ("n", "lost", "gained"))
        table.add_row(shown(name, 40), points(change["value"]), interval(change), *numbers)
    return table


def _whole(low: float, high: float) -> str:
    return f"{100 * low:.0f}–{100 * high:.0f}"
