"""Runs the example with several seeds, and writes one table with its bars.

    python benchmarks/orl_seeds.py --seeds=0,1,2 --runs=runs/seeds --out=docs/orl.md
    python benchmarks/orl_seeds.py --example=orl_qwen2_5 --seeds=0,1,2

Runs `configs/EXAMPLE.py` once per seed (a finished run is only read) and writes the multiple-choice
accuracies of all of them. Methods and controls: `python -m mmunlearner_jax.compare`. A seed changes
the profiles, the people to forget, the initial weights and the order of the data.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from absl import app, flags

from mmunlearner_jax.machine import machine
from mmunlearner_jax.results import read_results

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to run.")
_EXAMPLE = flags.DEFINE_enum(
    "example", "orl", ["orl", "orl_qwen", "orl_qwen2_5"], "Name of the config."
)
_RUNS = flags.DEFINE_string("runs", "runs/seeds", "Folder of the workdirs, one per seed.")
_OUT = flags.DEFINE_string("out", "", "Markdown file to write; by default docs/EXAMPLE.md.")

CELLS = {
    ("forget", "vqa"): "forget VQA",
    ("test", "vqa"): "forget VQA, unseen photographs",
    ("forget", "qa"): "forget QA",
    ("test", "qa"): "forget QA, by descriptions",
    ("retain", "vqa"): "retain VQA",
    ("test_retain", "vqa"): "retain VQA, unseen photographs",
    ("retain", "qa"): "retain QA",
    ("test_retain", "qa"): "retain QA, by descriptions",
    ("realworld", "vqa"): "realworld VQA",
    ("realworld", "qa"): "realworld QA",
}
# Limits for the mean over the seeds, set before any run: (least, most).
BARS: dict[tuple[str, str, str], tuple[float, float]] = {
    ("before", "forget", "vqa"): (0.95, 1),
    ("before", "test", "vqa"): (0.85, 1),
    ("before", "forget", "qa"): (0.98, 1),
    ("after", "forget", "vqa"): (0, 0.40),
    ("after", "test", "vqa"): (0, 0.45),
    ("after", "forget", "qa"): (0.95, 1),
    ("after", "retain", "vqa"): (0.95, 1),
    ("after", "test_retain", "vqa"): (0.90, 1),
    ("after", "retain", "qa"): (0.98, 1),
}
WITHIN = 0.03  # largest change of the accuracy about other things
RUNS = "before", "after"


def row(results: list[dict[str, Any]], run: str, cell: tuple[str, str]) -> dict[str, Any] | None:
    """Returns a kind of question of one run over the seeds; None if it was not asked."""
    scores = [r[run].get(cell[0], {}).get(cell[1], {}).get("classification") for r in results]
    if None in scores:
        return None
    values = np.array([s["value"] for s in scores])
    bar = ""
    if limits := BARS.get((run, *cell)):
        least, most = limits
        met = least <= values.mean() <= most
        bar = (f"≥ {least:.0%}" if least else f"≤ {most:.0%}") + (": met" if met else ": missed")
    elif (run, cell[0]) == ("after", "realworld"):
        before = np.mean(
            [r["before"][cell[0]][cell[1]]["classification"]["value"] for r in results]
        )
        met = abs(values.mean() - before) <= WITHIN
        bar = f"within {100 * WITHIN:.0f} points of before: " + ("met" if met else "missed")
    return {
        "label": CELLS[cell],
        "n": scores[0]["n"],
        "accuracies": values,
        "mean": values.mean(),
        "error": values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan"),
        "bar": bar,
    }


def main(_: list[str]) -> None:
    """Runs the missing seeds and writes the table."""
    example = _EXAMPLE.value
    out = Path(_OUT.value or f"docs/{example}.md")
    workdirs = [Path(_RUNS.value) / f"{example}-{seed}" for seed in _SEEDS.value]
    for seed, workdir in zip(_SEEDS.value, workdirs, strict=True):
        command = [sys.executable, "-m", "mmunlearner_jax.main", f"--config=configs/{example}.py"]
        subprocess.run([*command, f"--workdir={workdir}", f"--config.seed={seed}"], check=True)
    results = [read_results(workdir) for workdir in workdirs]
    tables = {run: [r for cell in CELLS if (r := row(results, run, cell))] for run in RUNS}
    named = "" if example == "orl" else f" --example={example}"
    command = f"python benchmarks/orl_seeds.py{named} --seeds={','.join(_SEEDS.value)}"
    template = Path(__file__).with_suffix(".md.j2").read_text()
    text = jinja2.Template(template, keep_trailing_newline=True).render(
        example=example,
        seeds=_SEEDS.value,
        command=command,
        where=machine(),
        tables=tables,
        results=results,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
