"""Audits any pair of checkpoints: is what was unlearned erased, or only hidden?

    python -m mmunlearner_jax.audit --config=configs/llava_mllmu.py --workdir=runs/audit
        --before=CHECKPOINT --after=CHECKPOINT --gold=CHECKPOINT --benchmark=FOLDER

It prints a table and writes `audit.json` in the workdir. To resume, run the same command again.
"""

import sys

from absl import app

from mmunlearner_jax.command_line import hide_torch, parse_flags, steady_streams
from mmunlearner_jax.main import main
from mmunlearner_jax.short_flags import ShortFlag, define, translated

SHORT = {
    "before": ShortFlag("model.checkpoint", "Checkpoint before unlearning.", needed=True),
    "after": ShortFlag("audit.after", "Checkpoint after unlearning.", needed=True),
    "gold": ShortFlag("audit.gold", "Checkpoint that never saw the faces to forget; optional."),
    "benchmark": ShortFlag("data.benchmark", "Folder of the benchmark, or its name on the hub."),
}

if __name__ == "__main__":
    hide_torch()
    steady_streams()
    define(SHORT)
    sys.argv = translated(sys.argv, SHORT, "audit")  # ml_collections reads the options there
    app.run(main, flags_parser=parse_flags)
