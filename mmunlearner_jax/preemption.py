"""SIGTERM, by which schedulers announce that a machine goes away, and Ctrl-C: save, and end well.

A loop that writes checkpoints ends after the step it is at. Anything else ends at once, because
what it writes appears whole or not at all; with several processes, where all of them ask. The exit
status is that of a program which the signal ended: to a scheduler the run is not done. Another
SIGTERM changes nothing; another Ctrl-C ends the program where it is.
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
    """The run was asked to end; the same command goes on with it.

    Like KeyboardInterrupt it is no Exception, so code that catches what a library raises lets it
    pass.
    """


class _Notice:
    """Whether the signal came, and whether a loop will see to it."""

    came = False
    by = signal.SIGTERM
    loops = 0
    asked = 0  # how often, of all processes alike


def watch() -> None:
    """Turns the signals into a notice; the first raises `Preempted` where no loop saves.

    With several processes the runtime's own service hears SIGTERM, and they agree on a step.
    """
    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, _hear)
        signal.signal(signal.SIGINT, _hear)


def over() -> None:
    """Has signals change nothing any more: the program ends, and has said how."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)


def leave() -> NoReturn:
    """Ends a run that was asked to end."""
    by = " by SIGTERM" if _Notice.by == signal.SIGTERM else ""
    print(STOPPED.replace(":", f"{by}:"), file=sys.stderr)
    sys.exit(128 + _Notice.by)


def _hear(by: int, _: Any) -> None:
    if _Notice.came:
        if by == signal.SIGINT:
            _tell(STOPPED)
            os._exit(128 + by)
        return
    _Notice.came, _Notice.by = True, signal.Signals(by)
    if not _Notice.loops:
        raise Preempted
    if by == signal.SIGINT:
        _tell("saving; Ctrl-C again ends at once")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())  # a signal may have come while a stream was writing


@contextlib.contextmanager
def saved_by_loop() -> Iterator[None]:
    """Inside, a notice waits for `due`."""
    _Notice.loops += 1
    try:
        yield
    finally:
        _Notice.loops -= 1
    if _Notice.came and not _Notice.loops:  # after the loop's last step
        raise Preempted


def due() -> bool:
    """Whether the loop should save after this step and raise `Preempted`.

    With several processes all of them must ask, after every step; they get the same answer.
    """
    if jax.process_count() > 1:
        # The service takes numbers that only grow, and stops at the next that all reach.
        _Notice.asked += 1
        return multihost_utils.reached_preemption_sync_point(_Notice.asked)
    return _Notice.came


def due_while_saving(step: int) -> bool:
    """Whether the notice came while Orbax saved a step, which asks the same service.

    It asks by the step's number; to a notice that comes then the service answers at the next one.
    """
    if jax.process_count() == 1:
        return _Notice.came
    came = multihost_utils.reached_preemption_sync_point(step + 1)
    multihost_utils.reached_preemption_sync_point(_Notice.asked)  # where numbers go on from
    return came


def heed() -> None:
    """Raises `Preempted` if it is time; asked by all processes where there is nothing to save."""
    if due():
        raise Preempted
