"""The main result of a comparison, as tables in the terminal."""

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.comparison.cells import missing
from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.reporting.templates import points


def print_result(console: Console, comparison: Comparison) -> None:
    """Prints a table per ratio, what is missing, and the contrasts named beforehand."""
    for ratio in comparison.ratios:
        title = f"{ratio} % of people forgotten: % right at equal forgetting, ± half of 95 % t"
        table = Table(title=title)
        table.add_column("", overflow="fold")
        table.add_column("reached", no_wrap=True)
        kinds = comparison.main_kinds
        for kind in kinds:
            table.add_column(kind, justify="right", no_wrap=True)
        for row in comparison.rows[ratio]:
            reached = "" if row.reference else f"{row.reached[0]} of {row.reached[1]}"
            cells = [f"{plus_minus(value)}{_mark(at)}" for value, at in map(row.shown, kinds)]
            table.add_row(row.label, reached, *cells)
        console.print(table)
        for finding in comparison.findings[ratio]:
            effect = finding.effect
            measured = (
                f"{points(effect.value)} points in {len(effect.seeds)} seeds,"
                f" p = {p_value(finding.p)}: "
                if effect
                else ""
            )
            console.print(f"{finding.role}: {finding.title}: {measured}{finding.verdict}")
        for note in comparison.notes(ratio):
            console.print(note)
    for lack in missing(comparison.cells):
        console.print(f"Missing: {lack}", soft_wrap=True)


def _mark(matched: bool) -> str:
    return "" if matched else " (end)"


def plus_minus(estimate: Estimate | None) -> str:
    """Writes a mean in percent and half of its t interval, e.g. "97.5 ± 2.1"."""
    if estimate is None:
        return ""
    half = "" if estimate.half is None else f" ± {100 * estimate.half:.1f}"
    return f"{100 * estimate.value:.1f}{half}"


def whole(fraction: float) -> str:
    """Writes a fraction as a whole number of percent, e.g. "\u221226"."""
    return f"{round(100 * fraction)}".replace("-", "\u2212")


def p_value(p: float | None) -> str:
    """Writes a p-value with two digits; "–" where there is none."""
    return "–" if p is None else f"{p:.2g}" if p >= 0.001 else "< 0.001"
