"""Unlearns the ORL example with float32 and with bfloat16 weights, and compares what is left.

    python benchmarks/rounding.py --seeds=0,1,2,3,4

Each seed has one vanilla model, trained in float32. It unlearns with float32 weights, and with
bfloat16 weights whose updates are rounded to the nearest or stochastically (`unlearn.rounding`).
Importances are measured on the same weights. The computation is in float32, as in the example. A
finished run is only read. `--vanilla` takes models over that another run has trained.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
from absl import app, flags

from mmunlearner_jax.comparison.estimates import Estimate, estimate
from mmunlearner_jax.machine import machine
from mmunlearner_jax.results import read_results

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds.")
_RUNS = flags.DEFINE_string("runs", "runs/rounding", "Folder of the workdirs.")
_VANILLA = flags.DEFINE_string(
    "vanilla", "", "Workdirs of the vanilla models, with {seed} in place of the seed."
)
_OUT = flags.DEFINE_string("out", "docs/results/rounding.md", "Markdown file to write.")

HALF = {"model.param_dtype": "bfloat16"}
STOCHASTIC = {"unlearn.rounding": "stochastic", "unlearn.gradients": "in_place"}
VARIANTS: dict[str, dict[str, str]] = {
    "float32": {},
    "bfloat16, nearest": HALF,
    "bfloat16, stochastic": HALF | STOCHASTIC,
}
REFERENCE = next(iter(VARIANTS))
KINDS = {
    "forget/vqa": "forgotten people, training photographs",
    "test/vqa": "forgotten people, unseen photographs",
    "forget/qa": "forgotten people, in words",
    "test/qa": "forgotten people, in words that describe them",
    "retain/vqa": "other people, training photographs",
    "test_retain/vqa": "other people, unseen photographs",
    "realworld/vqa": "other things, pictures",
}


def run(workdir: Path, seed: str, stages: str, values: dict[str, str]) -> dict[str, Any]:
    """Runs stages of the example, unless they are finished; returns the results."""
    command = [sys.executable, "-m", "mmunlearner_jax.main", "--config=configs/orl.py"]
    names = ",".join(f'"{stage}"' for stage in stages.split())
    options = {"seed": seed, "stages": f"({names},)", **values}
    command += [f"--config.{key}={value}" for key, value in options.items()]
    subprocess.run([*command, f"--workdir={workdir}"], check=True)
    return read_results(workdir)


def score(results: dict[str, Any], label: str, kind: str) -> float:
    """Returns the accuracy in multiple choice, in percent."""
    split, modality = kind.split("/")
    return 100 * results[label][split][modality]["classification"]["value"]


def shown(found: Estimate | None) -> str:
    """Returns a mean with half of its interval."""
    if found is None:
        return ""
    return f"{found.value:.1f}" + (f" ± {found.half:.1f}" if found.half is not None else "")


def main(_: list[str]) -> None:
    """Runs what is missing and writes the table."""
    runs, results = Path(_RUNS.value), {}
    for seed in _SEEDS.value:
        vanilla = Path(_VANILLA.value.format(seed=seed) or runs / f"vanilla-{seed}")
        if not _VANILLA.value:
            run(vanilla, seed, "prepare finetune", {})
        given = {
            "model.checkpoint": str(vanilla / "vanilla"),
            "data.benchmark": str(vanilla / "benchmark"),
        }
        for name, values in VARIANTS.items():
            workdir = runs / f"{name.replace(', ', '-')}-{seed}"
            stages = "importance mask unlearn evaluate"
            results[name, int(seed)] = run(workdir, seed, stages, given | values)
    seeds = [*map(int, _SEEDS.value)]

    def over(name: str, label: str, kind: str, less: str = "") -> str:
        """Returns a score over the seeds, or its difference from another variant's."""
        return shown(
            estimate(
                {
                    seed: score(results[name, seed], label, kind)
                    - (score(results[less, seed], label, kind) if less else 0)
                    for seed in seeds
                }
            )
        )

    others = [name for name in VARIANTS if name != REFERENCE]
    rows = [
        [
            *(label, over(REFERENCE, "before", kind)),
            *(over(name, "after", kind) for name in VARIANTS),
            *(over(name, "after", kind, REFERENCE) for name in others),
        ]
        for kind, label in KINDS.items()
    ]
    steps = {
        name: [results[name, seed]["unlearn"]["forget_steps"] for seed in seeds]
        for name in VARIANTS
    }
    template = Path(__file__).with_suffix(".md.j2").read_text()
    text = jinja2.Template(template, keep_trailing_newline=True, trim_blocks=True).render(
        variants=[*VARIANTS], rows=rows, steps=steps, seeds=seeds, where=machine()
    )
    Path(_OUT.value).write_text(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
