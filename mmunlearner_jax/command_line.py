"""What the programs of this package do with flags: every mistake is one line."""

import sys
from importlib.machinery import PathFinder

from absl import flags
from ml_collections import ConfigDict, config_flags

from mmunlearner_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Python file with get_config(), e.g. configs/orl.py.", lock_config=True
)


def hide_torch() -> None:
    """Has imports find no torch: transformers and tensorboardX would load it, and need it not."""
    find = PathFinder.find_spec

    def find_but_torch(name, *place):
        return None if name == "torch" else find(name, *place)

    PathFinder.find_spec = find_but_torch  # pyright: ignore[reportAttributeAccessIssue]


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but every mistake is one line."""
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        key = str(error.args[0]).strip("\"'")
        sys.exit(f"error: --config: the config has no key {key}; its file lists those it has")
    except (flags.Error, InputError, OSError) as error:
        # A config that cannot be loaded comes with a traceback, whose last line says why.
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        which = f"{said[0].split(':')[0]}: " if len(said) > 1 else ""
        sys.exit(f"error: {which}{said[-1]}")


def refuse_arguments(argv: list[str]) -> None:
    """Ends the program where more than flags was given."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")


def read_config(argv: list[str]) -> ConfigDict:
    """The config of `--config`; ends the program where it cannot be read.

    Args:
        argv: what is left of the command line.
    """
    refuse_arguments(argv)
    try:
        # A config file that cannot be loaded complains when it is first looked at.
        config: ConfigDict = _CONFIG.value
        config.to_json()
    except Exception as error:  # whatever its Python raised
        cause = error.__cause__ or error
        sys.exit(f"error: --config: {str(cause).splitlines()[-1].strip()}")
    return config
