"""The help of every command, as its `--help` prints it."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from mmunlearner_jax.__main__ import COMMANDS
from mmunlearner_jax.command_help import first_line

# What the help of every program with a config ends with.
_ENDING = re.compile(r"\n\nStages \(--config\.stages\):\n.*", re.DOTALL)


def markdown() -> str:
    """Returns a section for each command."""
    return "\n\n".join(_section(name, module) for name, module in COMMANDS.items())


def _section(name: str, module: str) -> str:
    text = help_of(name)
    ending = _ENDING.search(text)
    parts = [f"## `mmu {name}`", _about(module), f"```text\n{_ENDING.sub('', text)}\n```"]
    if ending and name == "run":
        parts.append(f"```text\n{ending[0].strip()}\n```")
    elif ending:
        parts.append("Its configs are those of [`mmu run`](#mmu-run).")
    return "\n\n".join(parts)


def _about(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return first_line(Path(spec.origin))


def help_of(name: str) -> str:
    """Returns what `mmu NAME --help` prints.

    Raises:
        subprocess.CalledProcessError: The command did not end with status 0.
    """
    command = [sys.executable, "-m", "mmunlearner_jax", name, "--help"]
    wide = os.environ | {"COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=wide)
    return done.stdout.strip()
