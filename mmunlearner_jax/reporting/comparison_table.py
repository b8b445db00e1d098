"""The main result of a comparison, as tables in the terminal."""

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.comparison.cells import missing
from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.evaluation.kinds import ASKED


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
