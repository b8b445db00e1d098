"""`mmu COMMAND`: all programs of the package under one name.

    mmu run --config=orl --workdir=runs/orl
    mmu COMMAND --help

`python -m mmunlearner_jax COMMAND` is the same.
"""

import ast
import difflib
import runpy
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import mmunlearner_jax

# The module that each command runs. Its docstring begins with what the command does.
COMMANDS: Mapping[str, str] = {
    "forget": "mmunlearner_jax.forget",
    "run": "mmunlearner_jax.main",
    "compare": "mmunlearner_jax.compare",
    "sequence": "mmunlearner_jax.sequence",
    "audit": "mmunlearner_jax.audit.__main__",
    "evaluate": "mmunlearner_jax.evaluate",
    "watch": "mmunlearner_jax.watch",
    "ask": "mmunlearner_jax.ask",
    "check": "mmunlearner_jax.check",
    "purge": "mmunlearner_jax.purge",
    "plan": "mmunlearner_jax.plan",
    "judge": "mmunlearner_jax.evaluation.judge",
    "reword": "mmunlearner_jax.audit.reword",
    "build": "mmunlearner_jax.data.builders.__main__",
    "list": "mmunlearner_jax.listing",
    "options": "mmunlearner_jax.config.__main__",
}
_HELP = {"-h", "--help", "help"}


def usage() -> str:
    """Returns what `mmu --help` prints."""
    head = ast.get_docstring(ast.parse(Path(__file__).read_text())) or ""
    lines = [f"  {name:10}{_about(module)}" for name, module in COMMANDS.items()]
    return "\n".join([head, "", "Commands:", *lines, "", "  --version"]) + "\n"


def _about(module: str) -> str:
    """Returns the first line of a module's docstring; the module is not imported."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return text.partition("\n")[0].removesuffix(".")


def main() -> None:
    """Runs the command that the command line names, with the arguments behind it."""
    arguments = sys.argv[1:]
    name = arguments[0] if arguments else ""
    if not name or name in _HELP:
        print(usage(), end="")
        sys.exit(0 if name else 2)
    if name == "--version":
        print(f"mmunlearner_jax {mmunlearner_jax.__version__}")
        return
    if name not in COMMANDS:
        _refuse(name)
    sys.argv = [f"mmu {name}", *arguments[1:]]
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    meant = f"Did you mean {near[0]}?" if near else f"Give one of {', '.join(COMMANDS)}."
    print(f"error: there is no command {name!r}. {meant}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
