"""Evaluates a fixture of each family of general ability and of each new benchmark, whole.

    python benchmarks/fixtures.py --workdir=runs/fixtures
    python benchmarks/fixtures.py --workdir=runs/fixtures --only=pope,umu --processes=1,2

The fixtures are made of the ORL faces and of digits (`examples/orl_general.py`, `orl_fiubench.py`,
`orl_umu.py`, `orl_ppu.py`), the model is the untrained one of configs/orl.py. Each fixture is
evaluated by a program of its own, start and compilation included, and scored again from its
predictions. With several counts of processes, the answers of each are compared with the first's.
It prints a line for each fixture: questions, seconds, and whether all of this agrees.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.table import Table

from mmunlearner_jax.data.abilities import ABILITIES
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.examples.orl_general import write_orl_general
from mmunlearner_jax.machine import machine

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("fiubench", "umu", "ppu")
FIXTURES = (*ABILITIES, *BENCHMARKS)

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all workdirs.", required=True)
_ONLY = flags.DEFINE_list("only", list(FIXTURES), "Fixtures.")
_PROCESSES = flags.DEFINE_list("processes", ["1"], "Counts of processes of this host.")


def run(workdir: Path, processes: int, **options: object) -> float:
    """Runs the program, and returns its seconds.

    Args:
        workdir: Folder of the run.
        processes: Number of processes; more than one begin by the users' launcher.
        **options: Options of the config, with "__" for the dot.
    """
    arguments = ["--config=configs/orl.py", f"--workdir={workdir}"]
    arguments += [f"--config.{key.replace('__', '.')}={x}" for key, x in options.items()]
    environment = os.environ | {"PYTHON": sys.executable, "DEVICES": "1"}
    if processes > 1:
        launcher = [str(ROOT / "launch/local.sh"), str(processes)]
        command = [*launcher, *arguments, f"--config.mesh=({processes},1,1)"]
    else:
        command = [sys.executable, "-m", "mmunlearner_jax.main", *arguments]
    begin = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def options_of(name: str, folder: Path) -> Mapping[str, object]:
    """Returns the options that evaluate a fixture.

    Args:
        name: One of `FIXTURES`.
        folder: Folder of all workdirs, which has `general/` and `prepared/`.
    """
    prepared = folder / ("prepared" if name in ABILITIES else f"prepared-{name}")
    given = {
        "model__checkpoint": prepared / "initial",
        "data__benchmark": prepared / "benchmark",
    }
    if name in ABILITIES:  # and, as a run asks about its benchmark, about four faces
        asked = {"evaluate__general": f"({name!r},)", "evaluate__general_files": folder / "general"}
        asked |= {"evaluate__splits": "('forget',)"}
        return given | asked
    return {**given, "data__forget_ratio": 5, "data__request": "persona"}


def evaluated(name: str, folder: Path, processes: int) -> tuple[Path, float]:
    """Evaluates a fixture, and returns the workdir and the seconds."""
    workdir = folder / f"{name}-{processes}"
    seconds = run(workdir, processes, stages="('evaluate',)", **options_of(name, folder))
    return workdir, seconds


def answers(workdir: Path) -> list[str]:
    """Returns all answers of a workdir."""
    files = sorted((workdir / "predictions").glob("*.jsonl"))
    return [line["response"] for file in files for line in read_predictions(file)]


def scored_again(name: str, folder: Path, workdir: Path) -> bool:
    """Returns whether the stage `rescore` writes the same bytes."""
    before = (workdir / "results.json").read_bytes()
    run(workdir, 1, stages="('rescore',)", **options_of(name, folder))
    return (workdir / "results.json").read_bytes() == before


def main(_: list[str]) -> None:
    """Evaluates the fixtures, and prints a line for each."""
    folder, counts = Path(_WORKDIR.value).absolute(), [int(count) for count in _PROCESSES.value]
    if not (folder / "general").exists():
        write_orl_general(folder / "general", seed=0)
    prepared = ["mllmu", *(name for name in BENCHMARKS if name in _ONLY.value)]
    for name in prepared:
        place = folder / ("prepared" if name == "mllmu" else f"prepared-{name}")
        run(place, 1, stages="('prepare',)", prepare__benchmark=name)
    table = Table(title=f"Fixtures, evaluated whole ({machine()})")
    for column in ("fixture", "questions", *(f"{count} process(es), s" for count in counts)):
        table.add_column(column)
    table.add_column("scored again")
    table.add_column("answers of all counts")
    for name in _ONLY.value:
        runs = [evaluated(name, folder, count) for count in counts]
        said = [answers(workdir) for workdir, _ in runs]
        row = [name, str(len(said[0])), *(f"{seconds:.0f}" for _, seconds in runs)]
        row.append("same bytes" if scored_again(name, folder, runs[0][0]) else "DIFFERS")
        row.append("same" if all(x == said[0] for x in said) else "DIFFER")
        table.add_row(*row)
        print(json.dumps(row), flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    app.run(main)
