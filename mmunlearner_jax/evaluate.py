"""Scores any checkpoint on the questions of a config, without unlearning.

    mmu evaluate --config=llava_mllmu --model=CHECKPOINT --workdir=runs/scores
    mmu evaluate --config=orl --model=runs/orl/export --benchmark=runs/orl/benchmark --workdir=W

It prints a table and writes `predictions/` and `results.json` in the workdir, where the model is
called `before`. To resume, run the same command again.
"""

import sys
from collections.abc import Mapping
from typing import Any

from absl import app, flags
from rich.console import Console
from rich.table import Table

from mmunlearner_jax.command_line import (
    hide_torch,
    one_line,
    parse_flags,
    refuse_lost_output,
    steady_streams,
)
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.files import expanded
from mmunlearner_jax.main import main as run_main
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.reporting.run_results import METRICS, run_kinds
from mmunlearner_jax.reporting.templates import interval, percent
from mmunlearner_jax.results import MEND, read_results
from mmunlearner_jax.short_flags import ShortFlag, define, translated

SHORT = {
    "model": ShortFlag("model.checkpoint", "Checkpoint to score: a folder or name.", needed=True),
    "benchmark": ShortFlag("data.benchmark", "Folder of the benchmark, or its name on the hub."),
}


def scores_table(results: Mapping[str, Any]) -> Table:
    """Returns a row for each split, modality and metric of one model.

    Args:
        results: Content of `results.json`.
    """
    table = Table()
    for name in ("split", "", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("score", "n", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, label in METRICS.items():
        for split, modality in run_kinds(results):
            score = results["before"].get(split, {}).get(modality, {}).get(metric)
            if score:
                cells = percent(score["value"]), str(score["n"]), interval(score)
                table.add_row(split, modality.upper(), label, *cells)
    return table


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    workdir = expanded(flags.FLAGS.workdir or "")
    with one_line(workdir):
        if made := [name for name in ("vanilla", "unlearned") if (workdir / name).exists()]:
            raise InputError(
                f"{workdir}: holds a run ({made[0]}/), whose own model would be scored; give a"
                " --workdir of its own"
            )
    run_main(argv)
    if is_first():
        with one_line(workdir), refusing(workdir / "results.json", MEND):
            Console(markup=False, emoji=False).print(scores_table(read_results(workdir)))
            refuse_lost_output()


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    define(SHORT)
    flags.mark_flags_as_required(["config", "workdir"])
    sys.argv = translated(sys.argv, SHORT, "evaluate")  # ml_collections reads the options there
    app.run(main, flags_parser=parse_flags)
