"""Command lines of this package's programs: flags, streams, and errors of one line."""

import argparse
import contextlib
import difflib
import io
import logging as std_logging
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from mmunlearner_jax.command_help import config_file, config_files, show_help
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.errors import LONGEST, InputError, in_words, listed, shown
from mmunlearner_jax.files import system_fault
from mmunlearner_jax.progress import set_quiet

# Else transformers warns in every program that there is no PyTorch. Programs of ours inherit it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Python file with get_config(), e.g. configs/orl.py.", lock_config=True
)


class _ConfigFile(ConfigFileFlagParser):
    """Runs a config file; any exception in it becomes an error of one line.

    Attributes:
        config: The last config that was read.
    """

    config = ConfigDict()

    def parse(self, path: str) -> ConfigDict:
        name, colon, arguments = path.partition(":")
        file = config_file(name)
        if file is None:
            raise flags.Error(f"--config={path}: there is no such file{_meant(path)}")
        sys.path.append(str(file.absolute().parent.parent))  # configs import each other
        try:
            config: Any = super().parse(f"{file}{colon}{arguments}")
            config.lock()
            config.to_json()
        except (Exception, SystemExit) as error:
            # The library wraps these: with a traceback in the text, or raised only on use.
            if isinstance(error, (OSError, TypeError, ValueError)):
                error = error.__cause__ or error.__context__ or error
            if isinstance(error, InputError):
                raise flags.Error(str(error)) from None
            raise flags.Error(f"--config={path}: {in_words(error)}; correct the file") from None
        self.config = config
        return config


def _meant(path: str) -> str:
    """Returns the end of a message: the config file that was probably meant, or those there are."""
    name, colon, arguments = path.partition(":")
    known = {file.stem: file for file in config_files()}
    near = difflib.get_close_matches(Path(name).stem, known, 1)
    if near:
        return f". Did you mean --config={near[0]}{colon}{arguments}?"
    return f"; there are {listed(known, 20)}" if known else ""


_QUIET = flags.DEFINE_bool("quiet", False, "Print warnings, errors and results, but no progress.")

_FILE = flags.FLAGS["config"].parser = _ConfigFile("config")


def hide_torch() -> None:
    """Hides torch from imports, because transformers and tensorboardX would load it needlessly."""
    find = PathFinder.find_spec

    def find_but_torch(name, *place):
        return None if name == "torch" else find(name, *place)

    PathFinder.find_spec = find_but_torch  # pyright: ignore[reportAttributeAccessIssue]


class _Steady(io.FileIO):
    """A standard stream whose write errors are recorded in `lost` and not raised."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # a full non-blocking stream: wait here
                select.select([], [self], [])
            return count
        except OSError as error:
            self.lost = error
            return len(data)


def steady_streams() -> None:
    """Makes prints succeed even if the reader has gone, the disk is full or a letter is unknown.

    Most programs write their results to files. A program that only prints must call
    `refuse_lost_output` at its end.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # The number of a closed stream must not be used by the next file that is opened.
        file = os.open(os.devnull, os.O_WRONLY) if stream is None else number
        raw = _Steady(file, "w", closefd=False)
        steady = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream and stream.encoding,
            errors="backslashreplace",
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, steady)


def quiet_libraries() -> None:
    """Silences tracebacks that libraries log or threads print, and Pillow's warnings.

    Errors that matter are also raised. What is logged is printed once: Orbax adds a handler to the
    one of absl.
    """
    for handler in [x for x in std_logging.root.handlers if type(x) is std_logging.StreamHandler]:
        std_logging.root.removeHandler(handler)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    threading.excepthook = lambda failed: logging.warning(
        "a thread has ended: %s", in_words(failed.exc_value or failed.exc_type())
    )


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with a message."""
        sys.exit(f"error: {shown(message, 400)}")


@contextlib.contextmanager
def one_line(place: Path) -> Iterator[None]:
    """Ends the program with one line on an input error, a system fault or Ctrl-C.

    Args:
        place: Folder that the program writes to, for errors that name no file.
    """
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped: run the same command again to go on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if refused := system_fault(error, place):
            sys.exit(f"error: {refused}")
        raise


def refuse_lost_output() -> None:
    """Ends the program with status 1 if standard output was lost, unless its reader has left."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Steady) else None
    if lost and not isinstance(lost, BrokenPipeError):
        sys.exit(f"error: standard output: {lost.strerror}; send it somewhere else")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but ends the program with one line on a mistake.

    If a value of the config is given twice, the last one counts; absl would join tuples. `--help`
    prints the help and ends the program with status 0.
    """
    if {"--help", "-help", "-h", "--helpshort", "--helpfull"} & {*argv[1:]}:
        flags.FLAGS.mark_as_parsed()
        show_help()
        sys.exit(0)
    last: dict[Any, str] = {}
    for n, argument in enumerate(argv):
        override = re.match(r"--?config\.([^=]*)=", argument)
        last[override[1] if override else n] = argument
    try:
        return flags.FLAGS(list(last.values()))
    except flags.Error as error:
        why = str(error)
        for value in (argument.partition("=")[2] for argument in argv):
            why = why.replace(value, shown(value, 80)) if len(value) > 80 else why
        _refuse(why)
    except Exception as error:  # an override with an unknown key
        unknown = filter(None, (_unknown(key) for key in last if isinstance(key, str)))
        _refuse(next(unknown, f"--config.KEY=VALUE: {in_words(error)}"))


def _unknown(path: str) -> str | None:
    """Returns why a dotted key of the config is unknown; None if it is known."""
    section, where = _FILE.config, "config"
    for key in path.split("."):
        if not isinstance(section, ConfigDict):
            return f"--config.{shown(path)}: {where} is a value, which has no keys"
        if key not in section:
            near = difflib.get_close_matches(key, section.keys(), 1)
            meant = (
                f'Did you mean "{near[0]}" instead of "{key}"?'
                if near
                else f"Give {listed(section)}"
            )
            return f"--config.{shown(path)}: {where} has no key {shown(repr(key), 40)}. {meant}"
        section, where = section[key], f"{where}.{key}"
    return None


def _refuse(why: str) -> NoReturn:
    sys.exit(f"error: {shown(' '.join(why.split()), LONGEST)}")


def refuse_arguments(argv: list[str]) -> None:
    """Ends the program if the command line has arguments that are not flags."""
    if len(argv) > 1:
        _refuse(f"unexpected argument {argv[1]!r}: flags are written --name=value")


def read_config(argv: list[str]) -> Config:
    """Returns the config of `--config`; ends the program if it is wrong.

    Args:
        argv: Command line without flags; it must hold only the program's name.
    """
    refuse_arguments(argv)
    set_quiet(_QUIET.value)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
    try:
        return typed(_CONFIG.value)
    except InputError as error:
        _refuse(str(error))
