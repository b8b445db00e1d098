"""Programs that run one stage: flags of their own stand for options of the config."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import flags


class ShortFlag(NamedTuple):
    """A flag of a program.

    Attributes:
        option: Dotted key of the option that it stands for.
        help: One line for `--help`.
        needed: Whether the program refuses to run without it.
    """

    option: str
    help: str
    needed: bool = False


def define(short: Mapping[str, ShortFlag]) -> None:
    """Defines the flags, so that `--help` lists them.

    Args:
        short: The flags by name.
    """
    for name, flag in short.items():
        flags.DEFINE_string(name, None, flag.help)


def translated(argv: Sequence[str], short: Mapping[str, ShortFlag], stage: str) -> list[str]:
    """Returns the arguments of `mmunlearner_jax.main` that run the stage.

    Args:
        argv: Arguments of the program; those with `--help` are returned as they are.
        short: The program's flags by name.
        stage: Name of the stage.
    """
    if {"--help", "-h"} & {*argv}:
        return [*argv]
    if bare := [argument for argument in argv if argument.removeprefix("--") in short]:
        sys.exit(f"error: {bare[0]} has no value: write {bare[0]}=FOLDER")
    needed = (name for name, flag in short.items() if flag.needed)
    missing = [name for name in needed if not any(a.startswith(f"--{name}=") for a in argv)]
    if missing:
        sys.exit(f"error: --{missing[0]} is missing: name a checkpoint, --{missing[0]}=FOLDER")
    pattern = re.compile(rf"--({'|'.join(short)})=(.*)", re.DOTALL)
    arguments = []
    for argument in argv:
        match = pattern.fullmatch(argument)
        arguments.append(f"--config.{short[match[1]].option}={match[2]}" if match else argument)
    return [*arguments, f"--config.stages=('{stage}',)"]
