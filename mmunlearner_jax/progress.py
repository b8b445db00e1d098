"""Progress of long work: a bar on a terminal, elsewhere a line at times, and files for `mmu watch`.

Each process of a run writes `progress/NUMBER.json` in the workdir: what it does, how far it is, and
how long a unit of each work took on which machine (`mmu check` counts on that).
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
from tqdm import tqdm

from mmunlearner_jax.errors import refusing
from mmunlearner_jax.files import read_json, write_whole
from mmunlearner_jax.machine import machine

FOLDER = "progress"
LINE_SECONDS = 30.0  # from one line to the next, where there is no terminal
_FILE_SECONDS = 1.0  # from one writing of the file to the next, at least
_MEND = "remove it: only watch and check read it"


class _Run:
    """What this process is doing; it has at most one run."""

    quiet = False
    file: Path | None = None
    record: dict[str, Any] = {}
    written = 0.0
    line = 0.0  # when the last line was printed


def set_quiet(quiet: bool) -> None:
    """Chooses whether bars and lines about progress are left out (`--quiet`).

    Nothing here asks JAX which process this is: that would take the devices, which the parent of a
    comparison's jobs must not do.
    """
    _Run.quiet = quiet


def say(line: str) -> None:
    """Prints a line about the run to stderr, above any bar; nothing where it is quiet."""
    if not _Run.quiet:
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


class Progress:
    """Progress of one work; use it as a context manager.

    Attributes:
        done: Number of units that are done.
    """

    def __init__(self, label: str, total: int, *, unit: str, start: int = 0):
        """Begins.

        Args:
            label: Name of the work.
            total: Number of its units.
            unit: What is counted, e.g. "step".
            start: Number of units that were done before.
        """
        self._label, self._total, self._unit, self.done = label, total, unit, start
        self._values: Mapping[str, float] = {}
        self._text = ""
        # The first unit includes compiling, so it does not count in the rate.
        self._first: tuple[int, float] | None = None
        self._rate = 0.0
        self._lines = not (_Run.quiet or sys.stderr.isatty())
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=label,
            unit=unit,
            disable=_Run.quiet or self._lines,
            file=sys.stderr,
        )
        self._record()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._record(force=True)
        self._bar.close()

    def update(self, units: int = 1, **values: float) -> None:
        """Counts units that are done.

        Args:
            units: Their number.
            **values: Numbers to show beside, e.g. a loss.
        """
        now = time.monotonic()
        self.done += units
        self._values = values
        if self._first is None:
            self._first = self.done, now
        elif now > self._first[1]:
            self._rate = (self.done - self._first[0]) / (now - self._first[1])
        self._bar.update(units)
        if values:
            self._bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
        if self._lines and now - _Run.line >= LINE_SECONDS:
            _Run.line = now
            say(self._line())
        self._record()

    def note(self, text: str) -> None:
        """Shows a text beside the bar; it stays until the next one."""
        self._text = text
        self._bar.set_postfix_str(text)

    def _line(self) -> str:
        """Returns e.g. "unlearn: 40 of 180 steps, 2.31 a second, 61 s left, loss 0.512"."""
        parts = [f"{self._label}: {self.done:,} of {self._total:,} {self._unit}s"]
        if self._rate:
            left = (self._total - self.done) / self._rate
            parts += [f"{self._rate:.3g} a second", f"{duration(left)} left"]
        values = (f"{name} {value:.3g}" for name, value in self._values.items())
        return ", ".join([*parts, *values, *filter(None, [self._text])])

    def _record(self, *, force: bool = False) -> None:
        if _Run.file is None or not (force or time.monotonic() - _Run.written >= _FILE_SECONDS):
            return
        work: dict[str, Any] = {"label": self._label, "unit": self._unit}
        work |= {"done": self.done, "total": self._total}
        if self._rate:
            work["rate"] = round(self._rate, 6)
            known = {"seconds": round(1 / self._rate, 6), "unit": self._unit}
            _Run.record["measured"][self._label] = known | {"machine": _Run.record["machine"]}
        _Run.record["work"] = work
        _write()


def duration(seconds: float) -> str:
    """Returns a time in words, e.g. "48 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def recorded(workdir: Path) -> Iterator[None]:
    """Records what this process does within the block, from its first work on.

    Args:
        workdir: Folder of the run.

    Raises:
        InputError: The file of an earlier command is damaged.
    """
    path = workdir / FOLDER / f"{jax.process_index()}.json"
    earlier = read_progress(path)["measured"] if path.exists() else {}
    _Run.file, _Run.written = path, 0.0
    _Run.record = {
        "state": "running",
        "pid": os.getpid(),
        "host": platform.node(),
        "processes": jax.process_count(),
        "machine": machine(),
        "stage": "",
        "work": {},
        "measured": earlier,
    }
    try:
        yield
        _Run.record["state"] = "done"
    except BaseException as error:
        _Run.record["state"] = "failed" if isinstance(error, Exception) else "stopped"
        raise
    finally:
        if path.exists():
            with contextlib.suppress(OSError):  # a full disk is reported by what filled it
                _write()
        _Run.file = None


def enter(stage: str) -> None:
    """Records that a stage begins."""
    _Run.record |= {"stage": stage, "work": {}}
    if _Run.file and _Run.file.exists():
        _write()


def _write() -> None:
    assert _Run.file is not None
    _Run.written = time.monotonic()
    record = _Run.record | {"updated": round(time.time(), 3)}
    write_whole(_Run.file, json.dumps(record, indent=2) + "\n")


def read_progress(path: Path) -> dict[str, Any]:
    """Returns what a process wrote.

    Args:
        path: The file, `progress/NUMBER.json`.

    Returns:
        `state` ("running", "done", "stopped" or "failed"), `pid`, `host`, `processes`, `machine`,
        `stage`, `updated` (seconds since 1970), `work` (`label`, `unit`, `done`, `total` and, once
        it is known, `rate`, units a second; {} between two works), and `measured`: by label the
        `seconds` of a `unit`, and the `machine`.

    Raises:
        InputError: The file is missing or damaged.
    """
    record = read_json(path, mend=_MEND)
    with refusing(path, _MEND):
        work, measured = record["work"], record["measured"].values()
        names = ("state", "host", "machine", "stage")
        texts = [*(record[name] for name in names), *(x["machine"] for x in measured)]
        numbers = [record[name] for name in ("pid", "processes", "updated")]
        numbers += [x["seconds"] for x in measured]
        if work:
            texts += [work["label"], work["unit"]]
            numbers += [work["done"], work["total"], work.get("rate", 0)]
        if not all(isinstance(x, str) for x in texts):
            raise TypeError(f"{texts} are not all strings")
        if not all(isinstance(x, int | float) for x in numbers):
            raise TypeError(f"{numbers} are not all numbers")
    return record
