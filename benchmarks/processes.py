"""Runs a config as several processes of this host and as one, and compares what they end with.

    python benchmarks/processes.py --workdir=runs/processes --counts=1,2,4 \
        -- --config.finetune.steps=20 --config.finetune.warmup=5

Every run has the same mesh of CPU devices (the largest count) and the same batches, so only the
reductions' order differs. Prints, against the first count: the largest difference of the exported
weights, as a part of the tensor's largest entry; entries of the mask that differ;
answers that differ. What stands behind `--` is given to the runs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from safetensors.numpy import load_file

from mmunlearner_jax.files import read_lines

_CONFIG = flags.DEFINE_string("config", "configs/orl.py", "Config of the runs.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the workdirs.", required=True)
_COUNTS = flags.DEFINE_list("counts", ["1", "2", "4"], "Processes of each run.")

ROOT = Path(__file__).parents[1]
TINY = np.finfo(np.float32).tiny  # for biases that are all zeros


def run(workdir: Path, count: int, devices: int, given: list[str]) -> None:
    """One run, by the launcher that users have."""
    environment = os.environ | {"PYTHON": sys.executable, "DEVICES": str(devices // count)}
    command = [str(ROOT / "launch/local.sh"), str(count), f"--config={_CONFIG.value}"]
    command += [f"--workdir={workdir}", f"--config.mesh=({devices},1,1)", *given]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def tensors(files: list[Path]) -> dict[str, np.ndarray]:
    """All of several safetensors files."""
    return {name: x for file in files for name, x in load_file(file).items()}


def compared(one: Path, other: Path) -> dict[str, float | int]:
    """How two workdirs differ."""
    weights, others = (tensors(sorted((w / "export").glob("*.safetensors"))) for w in (one, other))
    mask, its = (load_file(w / "mask.safetensors") for w in (one, other))
    assert weights.keys() == others.keys() and mask.keys() == its.keys()
    answers = [
        [line["response"] for file in files for line in read_lines(file)]
        for files in (sorted((w / "predictions").glob("*.jsonl")) for w in (one, other))
    ]
    return {
        "weights": max(
            float(np.abs(x - others[n]).max() / (np.abs(x).max() + TINY))
            for n, x in weights.items()
        ),
        "mask_entries": sum(x.size for x in mask.values()),
        "mask_differs": int(sum(np.sum(x != its[n]) for n, x in mask.items())),
        "answers": len(answers[0]),
        "answers_differ": sum(a != b for a, b in zip(*answers, strict=True)),
    }


def main(argv: list[str]) -> None:
    """Runs, compares."""
    counts = [int(count) for count in _COUNTS.value]
    workdir = Path(_WORKDIR.value).absolute()
    for count in counts:
        run(workdir / str(count), count, max(counts), argv[1:])
    for count in counts[1:]:
        found = compared(workdir / str(counts[0]), workdir / str(count))
        print(json.dumps({"processes": count, "against": counts[0], **found}))


if __name__ == "__main__":
    app.run(main)
