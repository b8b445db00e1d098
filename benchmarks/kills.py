"""Kills a run at random times, and compares its results with those of an undisturbed run.

    python benchmarks/kills.py --reference=runs/orl --workdir=runs/killed --kills=20
    python benchmarks/kills.py --reference=runs/two --workdir=runs/killed --kills=3 --processes=2 \
        -- --config.finetune.steps=20 --config.finetune.warmup=5

The reference is a run with the same config and number of processes; it is made if it is missing. A
kill is SIGKILL of one process after an exponentially distributed time. Then all processes must end,
and the same command is run again. Arguments after `--` are passed to the runs. The script prints
the stage of each kill, and the files whose bytes differ.
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
_KILLS = flags.DEFINE_integer("kills", 20, "Number of kills.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Processes of a run, connected over loopback.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the times of the kills.")

START = 8.0  # seconds that a process needs to start
ENDING = 60.0  # seconds in which the other processes must end
ROOT = Path(__file__).parents[1]


def command(workdir: Path, overrides: list[str]) -> list[str]:
    """Returns the command that starts a run."""
    start = [sys.executable, "-m", "mmunlearner_jax.main"]
    if _PROCESSES.value > 1:
        launcher = [str(ROOT / "launch/local.sh"), str(_PROCESSES.value)]
        start = ["env", f"PYTHON={sys.executable}", *launcher]
    return [*start, f"--config={_CONFIG.value}", f"--workdir={workdir}", *overrides]


def run_until(
    command: list[str], log: Path, seconds: float | None, rng: np.random.Generator
) -> tuple[bool, str]:
    """Runs a command and kills it after some seconds.

    Args:
        command: The command.
        log: File for its standard error.
        seconds: Time until the kill; None: no kill.
        rng: Chooses the process to kill.

    Returns:
        Whether the command ended by itself, and the stage that it was in.
    """
    with log.open("w") as stderr:
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
    text = log.read_text()
    if ended and process.returncode:
        raise SystemExit(text[-2000:])
    stages = re.findall(r"^stage (\w+)$", text, flags=re.MULTILINE)
    return ended, stages[-1] if stages else "start"


def compared(reference: Path, workdir: Path) -> dict[str, bool]:
    """Returns whether the bytes of each result file are equal in both runs, by name."""
    files = [
        path.relative_to(reference)
        for pattern in ("vanilla/*.safetensors", "export/*.safetensors", "mask.safetensors")
        for path in sorted(reference.glob(pattern))
    ]
    files += [path.relative_to(reference) for path in sorted(reference.glob("predictions/*"))]
    return {str(n): (reference / n).read_bytes() == (workdir / n).read_bytes() for n in files}


def main(argv: list[str]) -> None:
    """Kills and resumes the run, and compares its files."""
    reference, workdir = Path(_REFERENCE.value), Path(_WORKDIR.value)
    rng = np.random.default_rng(_SEED.value)
    log = workdir.with_name(f"{workdir.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    run_until(command(reference, argv[1:]), log, None, rng)
    mean = sum(read_results(reference)["seconds"].values()) / _KILLS.value
    tally: collections.Counter[str] = collections.Counter()
    same: dict[str, bool] = {}
    ended = True
    while tally.total() < _KILLS.value or not ended:
        if ended:  # the run ended before all kills: start it from the beginning
            shutil.rmtree(workdir, ignore_errors=True)
        last = tally.total() == _KILLS.value
        moment = None if last else START + rng.exponential(mean)
        ended, stage = run_until(command(workdir, argv[1:]), log, moment, rng)
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
