"""Kills a run at random moments, and compares its end with that of an undisturbed run.

    python benchmarks/kills.py --reference=runs/orl --workdir=runs/killed --kills=20

The reference is a finished run of the same config and seed (`make demo`). A kill is SIGKILL, after
an exponentially distributed time, and the same command follows. Prints in which stage each fell,
and whether the files are the same bytes.
"""

import collections
import json
import re
import signal
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
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

START = 8.0  # seconds that a process needs before it works


def run_until(command: list[str], seconds: float | None) -> tuple[bool, str]:
    """Runs for so long (None: to the end): whether it ended by itself, and the stage it was in."""
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        _, said = process.communicate(timeout=seconds)
        ended = True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        ended = False
    if ended and process.returncode:
        raise SystemExit(said[-2000:])
    stages = re.findall(r"^stage (\w+)$", said, flags=re.MULTILINE)
    return ended, stages[-1] if stages else "start"


def compared(reference: Path, workdir: Path) -> dict[str, bool]:
    """Whether the files that a run ends with are the same bytes."""
    names = ["vanilla/model.safetensors", "mask.safetensors", "export/model.safetensors"]
    names += sorted(f"predictions/{p.name}" for p in (reference / "predictions").iterdir())
    return {n: (reference / n).read_bytes() == (workdir / n).read_bytes() for n in names}


def main(_: list[str]) -> None:
    """Kills, resumes, compares."""
    reference, workdir = Path(_REFERENCE.value), Path(_WORKDIR.value)
    results = read_results(reference)
    command = [sys.executable, "-m", "mmunlearner_jax.main", f"--config={_CONFIG.value}"]
    command += [f"--workdir={workdir}", f"--config.seed={results['seed']}"]
    mean = sum(results["seconds"].values()) / _KILLS.value
    rng = np.random.default_rng(_SEED.value)
    tally: collections.Counter[str] = collections.Counter()
    ended = False
    while not ended and tally.total() < _KILLS.value:
        ended, stage = run_until(command, START + rng.exponential(mean))
        if not ended:
            tally[stage] += 1
            print(f"kill {tally.total()}: in {stage}", file=sys.stderr, flush=True)
    if not ended:
        run_until(command, None)
    same = compared(reference, workdir)
    print(json.dumps({"kills": dict(tally), "same bytes": same}, indent=2))
    if not all(same.values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
