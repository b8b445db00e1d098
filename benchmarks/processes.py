"""Runs a config with several processes of this host and with one, and compares the results.

    python benchmarks/processes.py --workdir=runs/processes --counts=1,2,4 \
        -- --config.finetune.steps=20 --config.finetune.warmup=5

Every run has the same mesh of CPU devices (the largest count) and the same batches, so only the
order of reductions differs. The script compares each count with the first, and prints the largest
difference of the exported weights as a fraction of the tensor's largest entry, and the numbers of
mask entries and of answers that differ. Arguments after `--` are passed to the runs.
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
TINY = np.finfo(np.float32).tiny  # avoids 0 / 0 for biases that are all 0


def run(workdir: Path, count: int, devices: int, overrides: list[str]) -> None:
    """Does one run with the users' launcher."""
    environment = os.environ | {"PYTHON": sys.executable, "DEVICES": str(devices // count)}
    command = [str(ROOT / "launch/local.sh"), str(count), f"--config={_CONFIG.value}"]
    command += [f"--workdir={workdir}", f"--config.mesh=({devices},1,1)", *overrides]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def tensors(files: list[Path]) -> dict[str, np.ndarray]:
    """Returns all tensors of several safetensors files, by name."""
    return {name: x for file in files for name, x in load_file(file).items()}


def compared(one: Path, other: Path) -> dict[str, float | int]:
    """Returns the differences of two workdirs."""
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
    """Runs each count and compares the results."""
    counts = [int(count) for count in _COUNTS.value]
    workdir = Path(_WORKDIR.value).absolute()
    for count in counts:
        run(workdir / str(count), count, max(counts), argv[1:])
    for count in counts[1:]:
        differences = compared(workdir / str(counts[0]), workdir / str(count))
        print(json.dumps({"processes": count, "against": counts[0], **differences}))


if __name__ == "__main__":
    app.run(main)
