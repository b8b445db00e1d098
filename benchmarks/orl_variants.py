"""Unlearns the ORL example in several variants over several seeds, and compares what is left.

`rounding.py` and `packing.py` say in which variants. Each seed has one vanilla model. A finished
run is only read. `--vanilla` takes models over that another run has trained.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from absl import flags

from mmunlearner_jax.comparison.estimates import Estimate, estimate
from mmunlearner_jax.machine import machine
from mmunlearner_jax.results import read_results

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds.")
_RUNS = flags.DEFINE_string("runs", "", 'Folder of the workdirs; "": runs/ and the page\'s name.')
_VANILLA = flags.DEFINE_string(
    "vanilla", "", "Workdirs of the vanilla models, with {seed} in place of the seed."
)
_OUT = flags.DEFINE_string("out", "docs/results", "Folder of the Markdown file to write.")

Variants = Mapping[str, Mapping[str, str]]  # values by dotted key, by name; the first is compared
KINDS = {
    "forget/vqa": "forgotten people, training photographs",
    "test/vqa": "forgotten people, unseen photographs",
    "forget/qa": "forgotten people, in words",
    "test/qa": "forgotten people, in words that describe them",
    "retain/vqa": "other people, training photographs",
    "test_retain/vqa": "other people, unseen photographs",
    "realworld/vqa": "other things, pictures",
}


def _run(workdir: Path, seed: int, stages: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Runs stages of the example, unless they are finished; returns the results."""
    command = [sys.executable, "-m", "mmunlearner_jax.main", "--config=configs/orl.py"]
    names = ",".join(f'"{stage}"' for stage in stages.split())
    options = {"seed": seed, "stages": f"({names},)", **values}
    command += [f"--config.{key}={value}" for key, value in options.items()]
    subprocess.run([*command, f"--workdir={workdir}"], check=True)
    return read_results(workdir)


def _measured(variants: Variants, runs: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Runs what is missing of a seed; returns the results by variant."""
    vanilla = Path(_VANILLA.value.format(seed=seed) or runs / f"vanilla-{seed}")
    if not _VANILLA.value:
        _run(vanilla, seed, "prepare finetune", {})
    given = {
        "model.checkpoint": str(vanilla / "vanilla"),
        "data.benchmark": str(vanilla / "benchmark"),
    }
    return {
        name: _run(
            runs / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
            seed,
            "importance mask unlearn evaluate",
            given | dict(values),
        )
        for name, values in variants.items()
    }


def _score(results: Mapping[str, Any], label: str, kind: str) -> float:
    """Returns the accuracy in multiple choice, in percent."""
    split, modality = kind.split("/")
    return 100 * results[label][split][modality]["classification"]["value"]


def _shown(found: Estimate | None) -> str:
    """Returns a mean with half of its interval."""
    if found is None:
        return ""
    return f"{found.value:.1f}" + (f" ± {found.half:.1f}" if found.half is not None else "")


def _table(variants: Variants, results: Mapping[int, Mapping[str, dict[str, Any]]]) -> str:
    """Returns the accuracies, and their differences from the first variant's, as Markdown."""
    reference, *others = variants

    def over(name: str, label: str, kind: str, less: str = "") -> str:
        """Returns a score over the seeds, or its difference from another variant's."""
        values = {
            seed: _score(of_seed[name], label, kind)
            - (_score(of_seed[less], label, kind) if less else 0)
            for seed, of_seed in results.items()
        }
        return _shown(estimate(values))

    columns = ["questions", "before", *variants, *(f"{name}, difference" for name in others)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind, label in KINDS.items():
        cells = [label, over(reference, "before", kind)]
        cells += [over(name, "after", kind) for name in variants]
        cells += [over(name, "after", kind, reference) for name in others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(script: str, variants: Variants) -> None:
    """Runs what is missing, and writes the page of a script.

    Args:
        script: Path of the script; its template stands beside it, and the page has its name.
        variants: Values by dotted key, by the variant's name; the first one is compared with.
    """
    path = Path(script)
    runs = Path(_RUNS.value or f"runs/{path.stem}")
    results = {int(seed): _measured(variants, runs, int(seed)) for seed in _SEEDS.value}
    steps = {
        name: [of_seed[name]["unlearn"]["forget_steps"] for of_seed in results.values()]
        for name in variants
    }
    template = path.with_suffix(".md.j2").read_text()
    text = jinja2.Template(template, keep_trailing_newline=True, trim_blocks=True).render(
        table=_table(variants, results),
        steps="; ".join(f"{name} {', '.join(map(str, n))}" for name, n in steps.items()),
        seeds=_SEEDS.value,
        where=machine(),
    )
    (Path(_OUT.value) / f"{path.stem}.md").write_text(text)
    print(text)
