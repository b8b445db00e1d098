"""The results of a run as tables in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.errors import shown
from mmunlearner_jax.evaluation.kinds import ASKED
from mmunlearner_jax.reporting.run_results import choice_score, control_runs, mask_verdict, rows
from mmunlearner_jax.reporting.templates import interval, percent


def print_results(console: Console, results: Mapping[str, Any]) -> None:
    """Prints split x modality x metric, then the control runs and what they bear out."""
    table = Table(title=f"Before and after unlearning, seed {shown(results['seed'], 20)}")
    for name in ("split", "", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("before → after", "n", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(results):
        change = f"{percent(row.before['value'])} → {percent(row.after['value'])}"
        cells = (row.split, row.modality.upper(), row.metric, change)
        table.add_row(*cells, str(row.after["n"]), interval(row.after))
    console.print(table)
    if "model_utility" in results:
        before, after = (results["model_utility"][when] for when in ("before", "after"))
        change = f"{percent(before['value'])} → {percent(after['value'])} ({interval(after)})"
        console.print(f"Model utility: {change}")
    for task, found in results.get("forget_quality", {}).get("after", {}).items():
        console.print(
            f"Forget quality, {shown(task, 40)}: p = {found['p_value']:.2g}, n = {found['n']}"
        )
    controls = control_runs(results)
    if not controls:
        return
    table = Table(title="Multiple choice by run, with 95 % intervals", leading=1)
    table.add_column("", no_wrap=True)
    for name in controls:
        table.add_column(shown(name, 40).replace("_", " "), justify="right", min_width=7)
    for asked in ASKED:
        scores = [choice_score(scores, asked) for scores in controls.values()]
        if any(scores):
            cells = [f"{percent(s['value'])}\n{_whole(*s['ci95'])}" if s else "" for s in scores]
            table.add_row(f"{asked[0]} {asked[1].upper()}", *cells)
    console.print(table)
    console.print(mask_verdict(results["after"], results["controls"]))


def _whole(low: float, high: float) -> str:
    return f"{100 * low:.0f}–{100 * high:.0f}"
