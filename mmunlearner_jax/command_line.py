"""What the programs of this package do with flags: every mistake is one line."""

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mmunlearner_jax.errors import InputError, in_words
from mmunlearner_jax.files import system_fault

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Python file with get_config(), e.g. configs/orl.py.", lock_config=True
)


def hide_torch() -> None:
    """Has imports find no torch: transformers and tensorboardX would load it, and need it not."""
    find = PathFinder.find_spec

    def find_but_torch(name, *place):
        return None if name == "torch" else find(name, *place)

    PathFinder.find_spec = find_but_torch  # pyright: ignore[reportAttributeAccessIssue]


class _Steady(io.FileIO):
    """A standard stream that nobody may read any more: the work goes on."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # it is not to wait, so we do
                select.select([], [self], [])
            return count
        except OSError as error:
            self.lost = error
            return len(data)


def steady_streams() -> None:
    """Has no print fail: not where the reader has gone, the disk is full or a letter is unknown.

    What a program is for lies in files; one that only prints asks `refuse_lost_output`.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        given = getattr(sys, name)
        # A stream that was closed is no place for the next file that is opened.
        file = os.open(os.devnull, os.O_WRONLY) if given is None else number
        raw = _Steady(file, "w", closefd=False)
        steady = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=given and given.encoding,
            errors="backslashreplace",
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, steady)


def quiet_libraries() -> None:
    """Has libraries log no traceback, nor print that of a thread: what matters they raise, too."""
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    threading.excepthook = lambda failed: logging.warning(
        "a thread has ended: %s", in_words(failed.exc_value or failed.exc_type())
    )


@contextlib.contextmanager
def one_line(place: Path) -> Iterator[None]:
    """Ends the program with one line where the user, or the system, is to mend something.

    Args:
        place: where the program writes, for errors that name no file.
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
    """Ends the program with status 1 where standard output was lost; a reader may leave."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Steady) else None
    if lost and not isinstance(lost, BrokenPipeError):
        sys.exit(f"error: standard output: {lost.strerror}; send it somewhere else")


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
