"""Kills a run at random moments, and compares its end with that of an undisturbed run.

    python benchmarks/kills.py --reference=runs/orl --workdir=runs/killed --kills=20
    python benchmarks/kills.py --reference=runs/two --workdir=runs/killed --kills=3 --processes=2 \
        -- --config.finetune.steps=20 --config.finetune.warmup=5

The reference is a run of the same config and processes; it is made where it is missing. A kill is
SIGKILL of one process after an exponentially distributed time; then all must end, and the same
command follows. What stands behind `--` is given to the runs. Prints in which stage each kill fell,
and whether the files are the same bytes.
"""

import collections
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from mmunlearner_jax.results import read_results

_CONFIG = flags.DEFINE_string("config", "configs/orl.py", "Config of both runs.")
_REFERENCE = flags.DEFINE_string(
    "reference", None, "Workdir of the undisturbed run.", required=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Workdir of the killed run.", required=True)
_KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Of each run, connected over loopback.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

START = 8.0  # seconds that a process needs before it works
ENDING = 60.0  # seconds in which the others must have ended
ROOT = Path(__file__).parents[1]


def command(workdir: Path, given: list[str]) -> list[str]:
    """What starts a run."""
    start = [sys.executable, "-m", "mmunlearner_jax.main"]
    if _PROCESSES.value > 1:
        launcher = [str(ROOT / "launch/local.sh"), str(_PROCESSES.value)]
        start = ["env", f"PYTHON={sys.executable}", *launcher]
    return [*start, f"--config={_CONFIG.value}", f"--workdir={workdir}", *given]


def run_until(
    command: list[str], said: Path, seconds: float | None, rng: np.random.Generator
) -> tuple[bool, str]:
    """Runs for so long (None: to the end): whether it ended by itself, and the stage it was in."""
    with said.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds)
            ended = True
        except subprocess.TimeoutExpired:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            ids = [str(process.pid)] if _PROCESSES.value == 1 else children
            subprocess.run(["kill", "-KILL", str(rng.choice(ids))], check=True)
            process.wait(timeout=ENDING)
            ended = False
    text = said.read_text()
    if ended and process.returncode:
        raise SystemExit(text[-2000:])
    stages = re.findall(r"^stage (\w+)$", text, flags=re.MULTILINE)
    return ended, stages[-1] if stages else "start"


def compared(reference: Path, workdir: Path) -> dict[str, bool]:
    """Whether the files that a run ends with are the same bytes."""
    found = [
        path.relative_to(reference)
        for pattern in ("vanilla/*.safetensors", "export/*.safetensors", "mask.safetensors")
        for path in sorted(reference.glob(pattern))
    ]
    found += [path.relative_to(reference) for path in sorted(reference.glob("predictions/*"))]
    return {str(n): (reference / n).read_bytes() == (workdir / n).read_bytes() for n in found}


def main(argv: list[str]) -> None:
    """Kills, resumes, compares."""
    reference, workdir = Path(_REFERENCE.value), Path(_WORKDIR.value)
    rng = np.random.default_rng(_SEED.value)
    said = workdir.with_name(f"{workdir.name}.log")
    said.parent.mkdir(parents=True, exist_ok=True)
    run_until(command(reference, argv[1:]), said, None, rng)
    mean = sum(read_results(reference)["seconds"].values()) / _KILLS.value
    tally: collections.Counter[str] = collections.Counter()
    same: dict[str, bool] = {}
    ended = True
    while tally.total() < _KILLS.value or not ended:
        if ended:  # before all kills were done: once more from the beginning
            shutil.rmtree(workdir, ignore_errors=True)
        last = tally.total() == _KILLS.value
        moment = None if last else START + rng.exponential(mean)
        ended, stage = run_until(command(workdir, argv[1:]), said, moment, rng)
        if ended:
            same = {n: ok and same.get(n, True) for n, ok in compared(reference, workdir).items()}
        else:
            tally[stage] += 1
            print(f"kill {tally.total()}: in {stage}", file=sys.stderr, flush=True)
    differing = sorted(name for name, ok in same.items() if not ok)
    print(json.dumps({"kills": dict(tally), "files": len(same), "differing": differing}))
    if differing or not same:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
