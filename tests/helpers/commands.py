"""Runs the program as users do, with few steps in every stage."""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mmunlearner_jax.config.run import READS, SHARED
from tests.helpers.flags import COMPILED_FAST

ROOT = Path(__file__).parents[2]
FOREIGN = {"torch", "tensorflow"}
FLAGS = {"XLA_FLAGS": COMPILED_FAST}  # one device
SHORT = {
    "checkpoint_every": 2,
    "finetune.steps": 6,
    "finetune.warmup": 2,
    "finetune.picture_batch": 16,
    "finetune.text_batch": 16,
    "importance.examples": 32,
    "unlearn.iterations": 8,
    "unlearn.stop_remembered": -1.0,
    "unlearn.stop_every": 2,
    "unlearn.retain_batch": 8,
    "evaluate.photos_per_person": 1,
    "evaluate.decode.batch_size": 16,  # batches of fewer shapes, so fewer programs
    "evaluate.decode.max_new_tokens": 10,
    "stages": (
        *("prepare", "finetune", "evaluate", "importance", "mask", "unlearn", "evaluate"),
        *("controls", "export", "report"),
    ),
    "controls": '("ga",)',
}

# Fewer people, of whom one is to be forgotten, and smaller models.
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
_TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 2}
_LLAVA = {"vision": {k: v for k, v in _TEXT.items() if "key" not in k}, "text": _TEXT}
_QWEN = {"vision": {"embed_dim": 32, "depth": 2, "num_heads": 2}}
_QWEN |= {"text": _TEXT | {"mrope_section": (2, 3, 3)}}
_WINDOWED = {"vision": {"hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 40}}
_WINDOWED |= {"text": _QWEN["text"]}
SMALL = {
    name: {
        "prepare.people": 12,
        **{f"prepare.{part}.{key}": x for part, y in sizes.items() for key, x in y.items()},
    }
    for name, sizes in (
        ("orl", _LLAVA),
        ("orl_clear", _LLAVA),
        ("orl_qwen", _QWEN),
        ("orl_clips", _QWEN),
        ("orl_qwen2_5", _WINDOWED),
    )
}
# Few countries, and the first layers of the pretrained decoder.
SMALL["flags"] = {
    **{f"prepare.vision.{key}": value for key, value in _LLAVA["vision"].items()},
    "prepare.countries": 8,
    "prepare.renderings": 2,
    "prepare.known_facts": "",
    "prepare.text.num_hidden_layers": 2,
    "align.steps": 4,
    "align.warmup": 1,
    "align.batch": 8,
    "finetune.text_batch": 0,
    "finetune.picture_batch": 8,
    "importance.examples": 8,
    "importance.batch_size": 8,
    "unlearn.iterations": 2,
    "unlearn.forget_batch": 8,
    "unlearn.text_batch": 8,
    "unlearn.stop_remembered": 0.01,
    "unlearn.stop_examples": 8,
    "evaluate.most_questions": 2,
    "data.forget_ratio": 20,
    "controls": "()",
}
TEXT_FIRST = {"finetune.text_first": 4}  # these train so
# For benchmarks with several questions about a picture.
PACKED = dict.fromkeys(
    ("finetune.pack", "finetune.text_pack", "unlearn.pack", "unlearn.text_pack"), 4
)


def command(workdir: Path, config: str = "orl", **overrides) -> list[str]:
    own = TEXT_FIRST if config in ("orl", "orl_qwen2_5") else {}
    own = own | PACKED if config == "orl" else own
    options = {**SHORT, **SMALL[config], **own, **overrides}
    stages = options["stages"]
    options = {k: v for k, v in options.items() if _is_read(k, stages, workdir)}
    return [
        sys.executable,
        *("-m", "mmunlearner_jax.main", f"--config=configs/{config}.py", f"--workdir={workdir}"),
        *(f"--config.{k}={v}" for k, v in options.items()),
    ]


def _is_read(key: str, stages: Any, workdir: Path) -> bool:
    """Returns whether a stage of this command, or of an earlier one on the workdir, reads a key."""
    file = workdir / "config.json"
    earlier = json.loads(file.read_text())["stages"] if file.exists() else []
    now = ast.literal_eval(stages) if isinstance(stages, str) else stages
    read = {section for stage in (*earlier, *now) for section in READS[stage]}
    return key.partition(".")[0] in {*SHARED, *read}


def signalled(line: list[str], there: Path, how: int) -> tuple[int, str]:
    """Runs a command until a path exists, then sends a signal; returns exit code and stderr."""
    env = {**os.environ, **FLAGS}
    with tempfile.TemporaryFile("w+") as stderr:  # not a pipe: a full one would block the run
        process = subprocess.Popen(line, cwd=ROOT, env=env, stderr=stderr)
        try:
            deadline = time.monotonic() + 300
            while not there.exists():
                assert process.poll() is None, "ended before it could be stopped"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(how)
            code = process.wait()
        stderr.seek(0)
        return code, stderr.read()


def run(workdir: Path, config: str = "orl", **overrides) -> subprocess.CompletedProcess:
    env = {**os.environ, **FLAGS, "PYTHONPROFILEIMPORTTIME": "1"}
    line = command(workdir, config, **overrides)
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def loaded(done: subprocess.CompletedProcess) -> set[str]:
    """Returns the packages that a run imported; this environment has torch."""
    # A line without a dot may be a failed import.
    return set(re.findall(r"^import time:.*\| *(\w+)\.", done.stderr, flags=re.MULTILINE))
