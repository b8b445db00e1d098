"""Carries out five requests one after the other on the ORL example, and tells who comes back.

    python benchmarks/sequences.py --seeds=0,1,2

Each request is of one person, and begins with the model that the last one left (docs/sequence.md).
A finished request is only read. `--vanilla` takes models over that another run has trained.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
from absl import app, flags

from mmunlearner_jax.comparison.estimates import estimate
from mmunlearner_jax.machine import machine
from mmunlearner_jax.reporting.sequence_page import Course, courses
from mmunlearner_jax.results import read_results

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_RUNS = flags.DEFINE_string("runs", "runs/sequences", "Folder of the workdirs.")
_VANILLA = flags.DEFINE_string(
    "vanilla", "", "Workdirs of the vanilla models, with {seed} in place of the seed."
)
_OUT = flags.DEFINE_string("out", "docs/results/sequence.md", "Markdown file to write.")

PEOPLE = ("s4", "s11", "s19", "s27", "s36")
KINDS = ("Forgotten people, unseen photographs", "Forgotten people, training photographs")
KEPT = ("Other people, unseen photographs", "Other things, pictures")


def run(workdir: Path, seed: str, vanilla: str) -> list[Course]:
    """Carries out the requests of a seed, unless they are finished; returns the scores."""
    requests = "(" + ",".join(f'("{person}",)' for person in PEOPLE) + ",)"
    command = [sys.executable, "-m", "mmunlearner_jax.sequence", "--config=configs/orl.py"]
    command += [
        f"--workdir={workdir}",
        f"--config.seed={seed}",
        f"--config.data.requests={requests}",
    ]
    if vanilla:
        stages = '("evaluate","importance","mask","unlearn","evaluate","export")'
        command += [f"--config.stages={stages}", f"--config.data.benchmark={vanilla}/benchmark"]
        command += [f"--config.model.checkpoint={vanilla}/vanilla"]
    subprocess.run(command, check=True)
    folders = [workdir / f"request-{number}" for number in range(1, len(PEOPLE) + 1)]
    return courses([read_results(folder) for folder in folders])


def over(seeds: Sequence[Sequence[Course]], label: str, request: int, time: int) -> str:
    """Returns a score over the seeds in percent, with half of its 95 % interval; "" without one."""
    values = {}
    for seed, of_seed in enumerate(seeds):
        course = next(x for x in of_seed if (x.label, x.request) == (label, request))
        if score := course.scores[time]:
            values[seed] = 100 * score["value"]
    return _shown(values)


def since(seeds: Sequence[Sequence[Course]], label: str, request: int) -> str:
    """Returns how much later requests changed a score, in points; "" where there is none."""
    if request == len(PEOPLE):
        return ""
    found = {
        seed: 100 * course.since
        for seed, of_seed in enumerate(seeds)
        for course in of_seed
        if (course.label, course.request) == (label, request) and course.since is not None
    }
    return _shown(found)


def _shown(values: dict[int, float]) -> str:
    found = estimate(values)
    if found is None:
        return ""
    return f"{found.value:.0f}" + (f" ± {found.half:.0f}" if found.half is not None else "")


def main(_: list[str]) -> None:
    """Runs what is missing and writes the page."""
    seeds = [
        run(Path(_RUNS.value) / f"seed-{seed}", seed, _VANILLA.value.format(seed=seed))
        for seed in _SEEDS.value
    ]
    times = range(len(PEOPLE) + 1)
    tables = {
        label: [
            [str(n), *(over(seeds, label, n, time) for time in times), since(seeds, label, n)]
            for n in range(1, len(PEOPLE) + 1)
        ]
        for label in KINDS
    }
    kept = [
        [label, *(over(seeds, label, 0, time) for time in times), since(seeds, label, 0)]
        for label in KEPT
    ]
    template = Path(__file__).with_suffix(".md.j2").read_text()
    text = jinja2.Template(template, keep_trailing_newline=True, trim_blocks=True).render(
        tables=tables, kept=kept, people=PEOPLE, seeds=_SEEDS.value, where=machine()
    )
    Path(_OUT.value).write_text(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
