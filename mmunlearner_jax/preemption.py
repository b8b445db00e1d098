"""Handling of SIGTERM, which schedulers send before they take a machine away, and of Ctrl-C.

A loop that writes checkpoints saves after its current step and ends. Any other code ends at once,
because its files appear as a whole or not at all; with several processes it ends at the next point
where all of them check. The exit status is that of a program which the signal ended, so a scheduler
knows that the run is not done. A second SIGTERM has no effect; a second Ctrl-C ends the program at
once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

STATUS = 128 + signal.SIGTERM
STOPPED = "stopped: run the same command again to go on"


class Preempted(BaseException):
    """The run was asked to end; the same command continues it.

    Like KeyboardInterrupt it is no Exception, so code that catches a library's exceptions does not
    catch it.
    """


class _Notice:
    """Whether a signal came, which one, and the number of loops that will save."""

    came = False
    by = signal.SIGTERM
    loops = 0
    checks = 0  # calls of `due`, the same number in all processes


def watch() -> None:
    """Installs the signal handlers; outside saving loops the first signal raises `Preempted`.

    With several processes JAX's preemption service handles SIGTERM, and they agree on a step.
    """
    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, _handle)
        signal.signal(signal.SIGINT, _handle)


def over() -> None:
    """Ignores further signals, because the program is ending and has printed why."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)


def leave() -> NoReturn:
    """Ends a run that was asked to end, with a line and the signal's status."""
    by = " by SIGTERM" if _Notice.by == signal.SIGTERM else ""
    print(STOPPED.replace(":", f"{by}:"), file=sys.stderr)
    sys.exit(128 + _Notice.by)


def _handle(by: int, _: Any) -> None:
    if _Notice.came:
        if by == signal.SIGINT:
            _print(STOPPED)
            os._exit(128 + by)
        return
    _Notice.came, _Notice.by = True, signal.Signals(by)
    if not _Notice.loops:
        raise Preempted
    if by == signal.SIGINT:
        _print("saving; Ctrl-C again ends at once")


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())  # not a stream: the signal may interrupt its write


@contextlib.contextmanager
def saved_by_loop() -> Iterator[None]:
    """Delays the end of the run within the block until the loop calls `due`."""
    _Notice.loops += 1
    try:
        yield
    finally:
        _Notice.loops -= 1
    if _Notice.came and not _Notice.loops:  # after the loop's last step
        raise Preempted


def due() -> bool:
    """Returns whether the loop should save after this step and raise `Preempted`.

    With several processes all of them must call it equally often; the result is the same in all.
    """
    if jax.process_count() > 1:
        # The service needs increasing numbers, and stops at the next one that all processes reach.
        _Notice.checks += 1
        return multihost_utils.reached_preemption_sync_point(_Notice.checks)
    return _Notice.came


def heed() -> None:
    """Raises `Preempted` if the run was asked to end; all processes call it, without saving."""
    if due():
        raise Preempted
