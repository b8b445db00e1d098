"""What `--help` prints: flags, stages, config files, and where options are explained."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from mmunlearner_jax.config.run import READS

_STAGES = Path(__file__).parent / "stages"
_CONFIGS = Path("configs")


def config_files() -> list[Path]:
    """Returns the config files of the current folder."""
    return sorted(_CONFIGS.glob("[!_]*.py"))


def show_help() -> None:
    """Prints the help of the program that runs; of one that takes a config, that of configs too."""
    print("".join(f"{line}\n" for line in _lines()), end="")


def _lines() -> Iterator[str]:
    program = sys.modules["__main__"].__doc__ or ""
    yield program.strip()
    yield ""
    yield "Flags:"
    yield flags.FLAGS.main_module_help().partition(":\n")[2]
    if "--config=" not in program:
        return
    yield "  --config: Config file, as FILE.py or FILE.py:NAME=VALUE,NAME=VALUE."
    yield "  --config.SECTION.OPTION: Value in place of the config file's."
    yield ""
    yield "Stages (--config.stages):"
    for name in READS:
        yield f"  {name:12}{_first_line(_STAGES / f'{name}.py').partition(': ')[2]}"
    yield ""
    yield "Config files (--config):"
    for path in config_files():
        yield f"  {path!s:27} {_first_line(path)}"
    yield ""
    yield "Every option: docs/reference/config.md, or python -m mmunlearner_jax.config"


def _first_line(path: Path) -> str:
    """Returns the first line of a Python file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
