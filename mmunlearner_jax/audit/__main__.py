"""Audits any pair of checkpoints: is what was unlearned erased, or only hidden?

    python -m mmunlearner_jax.audit --config=configs/llava_mllmu.py --workdir=runs/audit
        --before=CHECKPOINT --after=CHECKPOINT --gold=CHECKPOINT --benchmark=FOLDER

It prints a table and writes `audit.json` in the workdir. To resume, run the same command again.
"""

import re
import sys
from collections.abc import Sequence

from absl import app, flags

from mmunlearner_jax.command_line import hide_torch, parse_flags, steady_streams
from mmunlearner_jax.main import main

# This program's flags stand for options of the config.
OPTIONS = {
    "before": "model.checkpoint",
    "after": "audit.after",
    "gold": "audit.gold",
    "benchmark": "data.benchmark",
}


def translated(argv: Sequence[str]) -> list[str]:
    """Returns the arguments of `mmunlearner_jax.main` that run an audit.

    Args:
        argv: Arguments of this program.
    """
    if {"--help", "-h"} & {*argv}:
        return [*argv]
    if bare := [argument for argument in argv if argument.removeprefix("--") in OPTIONS]:
        sys.exit(f"error: {bare[0]} has no value: write {bare[0]}=FOLDER")
    missing = [f for f in ("before", "after") if not any(a.startswith(f"--{f}=") for a in argv)]
    if missing:
        sys.exit(f"error: --{missing[0]} is missing: name a checkpoint, --{missing[0]}=FOLDER")
    pattern = re.compile(rf"--({'|'.join(OPTIONS)})=(.*)", re.DOTALL)
    arguments = []
    for argument in argv:
        match = pattern.fullmatch(argument)
        arguments.append(f"--config.{OPTIONS[match[1]]}={match[2]}" if match else argument)
    return [*arguments, "--config.stages=('audit',)"]


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.DEFINE_string("before", None, "Checkpoint before unlearning.")
    flags.DEFINE_string("after", None, "Checkpoint after unlearning.")
    flags.DEFINE_string("gold", None, "Checkpoint that never saw the faces to forget; optional.")
    flags.DEFINE_string("benchmark", None, "Folder of the benchmark, or its name on the hub.")
    sys.argv = translated(sys.argv)  # ml_collections reads the options there
    app.run(main, flags_parser=parse_flags)
