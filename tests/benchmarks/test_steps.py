"""The steps' benchmark on a tiny model, on one CPU device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.flags import COMPILED_FAST

# In a process of its own: scripts define flags of the same names.
PROGRAM = """
import sys
from absl import app, flags
from mmunlearner_jax.command_line import hide_torch, parse_flags
hide_torch()
from benchmarks import steps
from mmunlearner_jax.models.llava import LLAVA
from tests.helpers.small import SMALL
LLAVA.sizes["llava_1_5_7b"] = lambda: SMALL
app.run(steps.main, argv=["steps", *sys.argv[1:]], flags_parser=parse_flags)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["importance", "unlearn"])
def test_steps_are_measured(tmp_path, stage):
    given = {"mesh": "(1,1,1)", "plan.question_tokens": 12, "plan.answer_tokens": 8}
    names = ("importance.batch_size", *(f"unlearn.{k}_batch" for k in ("forget", "retain", "text")))
    given |= dict.fromkeys(names, 2)
    out = tmp_path / "steps.json"
    command = [sys.executable, "-c", PROGRAM, f"--stage={stage}", "--rounds=2", "--peak=1"]
    command += ["--config=configs/llava.py", f"--out={out}"]
    command += [f"--config.{key}={value}" for key, value in given.items()]
    root = Path(__file__).parents[2]
    environment = os.environ | {"XLA_FLAGS": COMPILED_FAST}
    subprocess.run(command, check=True, cwd=root, env=environment, stdout=subprocess.PIPE)
    found = json.loads(out.read_text())["programs"]
    assert len(found) == 2 and all(row["fits"] for row in found)
    assert all(len(row["seconds"]) == 2 and 0 < row["mfu"] for row in found)
