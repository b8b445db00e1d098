"""What `--help` prints: flags, stages, config files, and where options are explained."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from mmunlearner_jax.config.run import READS

_PACKAGE = Path(__file__).parent
_STAGES = _PACKAGE / "stages"


def config_folder() -> Path:
    """Returns the folder of config files: `configs/` here, or else the one of the package.

    A checkout has it beside the package, an installed wheel within it.
    """
    places = (Path("configs"), _PACKAGE.parent / "configs", _PACKAGE / "shipped/configs")
    return next((place for place in places if (place / "orl.py").is_file()), places[0])


def config_files() -> list[Path]:
    """Returns the config files that can be named without their folder."""
    return sorted(config_folder().glob("[!_]*.py"))


def config_file(name: str) -> Path | None:
    """Returns a config file by its path or by its name alone, e.g. `orl`; None if there is none."""
    path = Path(name)
    if path.is_file():
        return path
    named = config_folder() / f"{name}.py"
    return named if path.name == name and named.is_file() else None


def stages() -> dict[str, str]:
    """Returns what each stage does, by name."""
    return {name: first_line(_STAGES / f"{name}.py").partition(": ")[2] for name in READS}


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
    yield "  --config: Config file or its name, as NAME, FILE.py or NAME:OPTION=VALUE,..."
    yield "  --config.SECTION.OPTION: Value in place of the config file's."
    yield "  --quiet: Print warnings, errors and results, but no progress."
    yield "  --verbosity: -3 to 1: fatal, error, warning (default), info, debug."
    yield ""
    yield "Stages (--config.stages):"
    for name, about in stages().items():
        yield f"  {name:12}{about}"
    yield ""
    yield "Config files (--config):"
    for path in config_files():
        yield f"  {path.stem:16}{first_line(path)}"
    yield ""
    yield "Every option: docs/reference/config.md, or python -m mmunlearner_jax.config"


def first_line(path: Path) -> str:
    """Returns the first line of a Python file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
