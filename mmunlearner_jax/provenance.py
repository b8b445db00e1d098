"""Where a run comes from: command, differences of its config, commit, versions, device, hashes.

Everything is recorded when a stage has worked, in the entry `provenance` of `results.json`; a
report only shows it.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import mmunlearner_jax
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.machine import device
from mmunlearner_jax.options import flatten
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.results import read_results, update_results

if TYPE_CHECKING:
    from mmunlearner_jax.session import Session

ENTRY = "provenance"
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "qwix", "grain", "transformers"),
    *("tokenizers", "safetensors", "pillow", "numpy", "scipy", "scikit-learn", "rouge_score"),
)
BEFORE, AFTER = "before", "after"
_MADE = {"finetune": (BEFORE, "vanilla"), "export": (AFTER, "export")}
_THREADS = min(8, os.cpu_count() or 1)


def command() -> str:
    """Returns the command line of this program as a shell takes it."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else ""
    program = ["python", "-m", module] if module else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def config_differences(config: Config, overrides: Collection[str]) -> dict[str, dict[str, Any]]:
    """Returns the options of a run that are not the package's defaults.

    Args:
        config: Config of the run.
        overrides: Dotted keys of the options on the command line.

    Returns:
        `{"command_line": {key: value}, "config_file": {key: value}}`; an option that the command
        line sets is not repeated as one of the file.
    """
    now, default = (flatten(json.loads(json.dumps(c.to_dict()))) for c in (config, Config()))
    given = {key: now[key] for key in sorted(now) if key in overrides}
    file = {
        key: value
        for key, value in sorted(now.items())
        if key not in given and default.get(key) != value
    }
    return {"command_line": given, "config_file": file}


@functools.cache
def commit() -> dict[str, Any] | None:
    """Returns `{"hash", "changed"}` of the checkout that holds the package; None if none does."""
    root = Path(mmunlearner_jax.__file__).parents[1]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def output(*arguments: str) -> str | None:
        done = subprocess.run([git, "-C", root, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    head = output("rev-parse", "HEAD")
    changes = output("status", "--porcelain", "--untracked-files=no")
    return {"hash": head, "changed": bool(changes)} if head else None


def versions() -> dict[str, str]:
    """Returns the versions of Python, of this package and of those that numbers depend on."""
    return {
        "python": platform.python_version(),
        "mmunlearner_jax": mmunlearner_jax.__version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def peak_memory() -> dict[str, int]:
    """Returns the most memory that this process has held so far, in bytes.

    Returns:
        `host`, and `device` where the devices tell it: that of the fullest local device.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    told = [stats for it in jax.local_devices() if (stats := it.memory_stats())]
    if found := [stats["peak_bytes_in_use"] for stats in told if "peak_bytes_in_use" in stats]:
        peaks["device"] = int(max(found))
    return peaks


def weight_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every `*.safetensors` file of a checkpoint, by name.

    `sha256sum *.safetensors` prints the same.

    Raises:
        InputError: The folder has no such file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: has no *.safetensors; give the folder of a checkpoint")
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip((file.name for file in files), pool.map(_sha256, files), strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now() -> str:
    """Returns the time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(" ", "seconds")


def of_command(config: Config, overrides: Collection[str]) -> dict[str, Any]:
    """Returns what does not change while a command runs.

    Args:
        config: Config of the run.
        overrides: Dotted keys of the options on the command line.
    """
    return {
        "command": command(),
        "config": config_differences(config, overrides),
        "commit": commit(),
        "versions": versions(),
        "device": device(),
        "processes": jax.process_count(),
    }


def record(session: "Session", stage: str, overrides: Collection[str]) -> None:
    """Adds a stage that has worked to the entry `provenance` of `results.json`.

    The entry has `commands` by a short hash of their content, `stages` (the commands that worked
    on each, their peak memory in bytes and the time of the end) and `checkpoints` (the weights'
    hashes before and after). Only the first process records.

    Args:
        session: Session of the run.
        stage: Name of the stage.
        overrides: Dotted keys of the options on the command line.
    """
    if not is_first():
        return
    known = read_results(session.workdir).get(ENTRY, {})
    content = of_command(session.config, overrides)
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    earlier = known.get("stages", {}).get(stage, {})
    peaks = peak_memory()
    told = {
        "commands": list(dict.fromkeys([*earlier.get("commands", ()), key])),
        "peak_bytes": {
            k: max(v, earlier.get("peak_bytes", {}).get(k, 0)) for k, v in peaks.items()
        },
        "ended": now(),
    }
    checkpoints = known.get("checkpoints", {}) | _checkpoints(session, stage, known)
    values = {
        "commands": known.get("commands", {}) | {key: content},
        "stages": known.get("stages", {}) | {stage: told},
        "checkpoints": checkpoints,
    }
    update_results(session.workdir, ENTRY, values)


def _checkpoints(
    session: "Session", stage: str, known: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns the hashes of the weights that a stage made, or that are read for the first time."""
    if stage in _MADE:
        when, name = _MADE[stage]
        return {when: {"folder": name, "weights": weight_hashes(session.workdir / name)}}
    if "params" in vars(session) and BEFORE not in known.get("checkpoints", {}):
        from mmunlearner_jax.weights.io import read_config  # not before `hide_torch`

        folder, _ = read_config(session.checkpoint)
        return {BEFORE: {"folder": session.checkpoint, "weights": weight_hashes(Path(folder))}}
    return {}
