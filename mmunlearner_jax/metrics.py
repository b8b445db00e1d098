"""Metrics of a stage: its progress, `metrics.jsonl` and TensorBoard."""

import contextlib
import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import tensorboardX

from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.files import parse_json, read_lines, write_whole
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.profiling import Trace
from mmunlearner_jax.progress import Progress

FILE = "metrics.jsonl"
_LOT_SECONDS = 1.0  # from one fetch of values to the next, about
_MOST = 10  # steps from one fetch to the next
_MEND = "remove the line: only the report's curves use it"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`: stage, step and finite numbers.

    Raises:
        InputError: A line is damaged; the first such line is named.
    """
    path = workdir / FILE
    return read_lines(path, _read_line, mend=_MEND, growing=True) if path.exists() else []


def _read_line(text: str) -> dict[str, Any]:
    line = parse_json(text)
    if not isinstance(line["stage"], str):
        raise TypeError("stage is not a string")
    for name, value in line.items():
        if name != "stage" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise TypeError(f"{name} is not a number")
    if "step" not in line:
        raise KeyError("step")
    return line


def _close(board: tensorboardX.SummaryWriter) -> None:
    try:
        board.close()
    except OSError:
        writer: Any = board.file_writer
        writer.event_writer = io.BytesIO()  # so that the close at the program's end does not fail
        raise


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class Metrics:
    """Metrics of one stage; use it as a context manager.

    Values may be arrays on a device. They are fetched about once a second, and at least every ten
    steps (with several processes: every ten), while the device works on the next step. Before every
    checkpoint all are fetched, so that none is lost. Only process 0 writes.

    If a value is not finite, `write` or the end of the context raises `Diverged` before the next
    checkpoint, in all processes.
    """

    def __init__(
        self,
        workdir: Path,
        stage: str,
        *,
        total: int,
        start: int = 0,
        saved: int = 10,
        profile: int = 0,
        once: Mapping[str, float] | None = None,
    ):
        """Opens the files and drops lines that an interrupted run wrote after step `start`.

        Args:
            workdir: Folder of `metrics.jsonl` and `tensorboard/`.
            stage: Name of the stage, for the bar and for every line.
            total: Number of steps of the whole stage.
            start: Number of steps that are already done.
            saved: Number of steps between two checkpoints.
            profile: Number of steps to trace, for TensorBoard; 0: none.
            once: Values that do not change; they are written with the stage's first step.
        """
        self._stage, self._saved, self._rows = stage, saved, []
        self._once = {} if start else dict(once or {})
        self._begin = self._flushed = time.monotonic()
        # Steps whose values are fetched together: the same number in all processes, which must
        # notice a value that is not finite at the same step.
        self._lot = _MOST if jax.process_count() > 1 else 1
        self._file = self._board = None
        folder = workdir / "tensorboard" / stage
        self._trace = Trace(folder, steps=profile, start=start, total=total)
        self._progress = Progress(stage, total, unit="step", start=start)
        if is_first():
            old = read_metrics(workdir)
            kept = [r for r in old if r["stage"] != stage or r["step"] <= start]
            path = workdir / FILE
            write_whole(path, "".join(_line(row) for row in kept))
            self._file = path.open("a")
            # An unlimited queue: a full disk may end its thread, and steps must not wait for it.
            self._board = tensorboardX.SummaryWriter(str(folder), purge_step=start + 1, max_queue=0)

    def __enter__(self) -> "Metrics":
        self._trace.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.ExitStack() as closing:  # each is closed even if another fails
            if self._file and self._board:
                closing.callback(_close, self._board)
                closing.push(self._file)
            closing.push(self._progress)
            closing.callback(self._flush)
            closing.push(self._trace)

    def write(self, step: int, **values: Any) -> None:
        """Records one step's values (scalars or scalar arrays)."""
        self._rows.append((step, values | self._once))
        self._once = {}
        if step % self._saved == 0:
            self._flush()
        elif len(self._rows) > self._lot:
            self._flush(keep=1)  # the device works on the latest step meanwhile
        self._trace.step()

    def _flush(self, keep: int = 0) -> None:
        """Fetches and writes values, but for those of the latest steps.

        Steps are enqueued long before they are computed. So their durations are those between two
        fetches, in equal parts.

        Args:
            keep: Number of the latest steps whose values are not fetched yet.
        """
        cut = len(self._rows) - keep
        rows, self._rows = jax.device_get(self._rows[:cut]), self._rows[cut:]
        begin, self._flushed = self._flushed, time.monotonic()
        each = (self._flushed - begin) / max(len(rows), 1)
        if jax.process_count() == 1:
            self._lot = min(_MOST, max(1, int(_LOT_SECONDS / max(each, 1e-9))))
        for number, (step, values) in enumerate(rows, 1):
            seconds = begin + number * each - self._begin
            values = {k: float(v) for k, v in values.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    self._rows = []
                    raise Diverged(
                        f"{self._stage}, step {step}: {name} is {value}: the run diverged; lower"
                        " the learning rate, clip gradients, or start from other weights"
                    )
            if self._file and self._board:
                line = {"stage": self._stage, "step": step, "seconds": round(seconds, 3), **values}
                self._file.write(_line(line))
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
            self._progress.update(step - self._progress.done, **values)
        if self._file:
            self._file.flush()
