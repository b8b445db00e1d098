"""Follows a run: stage, step, rate, time left and loss of each process, until the run ends.

    mmu watch runs/orl
    mmu watch runs/orl --once

On a terminal a table is drawn again and again; elsewhere a line of each process is printed every 30
seconds. The workdir of a comparison shows the jobs that run. Nothing of the run is changed.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmunlearner_jax.command_line import Arguments, one_line, refuse_lost_output, steady_streams
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import parse_json
from mmunlearner_jax.lock import is_locked
from mmunlearner_jax.metrics import FILE
from mmunlearner_jax.progress import FOLDER, LINE_SECONDS, duration, read_progress

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 40  # of a sparkline
_TAIL = 2**18  # bytes at the end of `metrics.jsonl` that are read
_LOOK_SECONDS = 1.0
# A run has ended where the workdir's lock is free; a process that did not say so was killed.
_ENDS = {"done": "done", "stopped": "stopped", "failed": "failed", "running": "killed"}


class Row(NamedTuple):
    """What one process of a run does.

    Attributes:
        run: Workdir of the run, relative to the watched one; "" if it is that.
        process: Number of the process.
        state: "running", or how it ended.
        record: See `progress.read_progress`.
        losses: Name and last values of the work's loss; ("", []) where it has none.
    """

    run: str
    process: str
    state: str
    record: dict[str, Any]
    losses: tuple[str, list[float]]

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Work, units done, rate, time left and the state, in words."""
        work = self.record["work"]
        if not work:
            return shown(self.record["stage"], 40), "", "", "", self.state
        done, total, rate = work["done"], work["total"], work.get("rate", 0)
        counted = f"{done:,} of {total:,} {shown(work['unit'], 20)}s"
        going = self.state == "running" and rate
        speed = f"{rate:.3g} a second" if rate >= 1 or not rate else f"{1 / rate:.3g} s each"
        left = f"{duration((total - done) / rate)} left" if going and total > done else ""
        return shown(work["label"], 40), counted, speed if rate else "", left, self.state


def rows(workdir: Path) -> list[Row]:
    """Returns a row for each process of the run, or of each run of a comparison.

    Args:
        workdir: Folder of a run or of a comparison.

    Raises:
        InputError: No run has begun there, or a file is damaged.
    """
    files = sorted(workdir.glob(f"{FOLDER}/*.json")) or sorted(workdir.glob(f"*/*/{FOLDER}/*.json"))
    if not files:
        raise InputError(
            f"{workdir}: has no {FOLDER}/*.json, so no run has begun a work there; give the"
            " --workdir of a run"
        )
    found = []
    for file in files:
        home, record = file.parent.parent, read_progress(file)
        state = record["state"] if is_locked(home) else _ENDS.get(record["state"], "ended")
        label = record["work"].get("label", "")
        name = "" if home == workdir else str(home.relative_to(workdir))
        found.append(Row(name, file.stem, state, record, _losses(home / FILE, label)))
    return found


def _losses(path: Path, label: str) -> tuple[str, list[float]]:
    """Returns the name and the last values of a work's loss, from the end of `metrics.jsonl`."""
    if not path.exists():
        return "", []
    with path.open("rb") as file:
        skipped = file.seek(max(0, path.stat().st_size - _TAIL))
        texts = file.read().split(b"\n")
    # The first line may lack its beginning, the last one its end.
    lines = [parse_json(text) for text in texts[bool(skipped) : -1] if text]
    own = [line for line in lines if line.get("stage") == label]
    name = next((key for line in own for key in line if key.endswith("loss")), "")
    return name, [float(line[name]) for line in own if name in line]


def sparkline(values: Sequence[float], points: int = _POINTS) -> str:
    """Returns a line of bars, each the mean of an equal share of the values.

    Args:
        values: The values, oldest first.
        points: Most bars.
    """
    count = min(points, len(values))
    if not count:
        return ""
    edges = [n * len(values) // count for n in range(count + 1)]
    parts = [values[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    means = [sum(part) / len(part) for part in parts]
    low, span = min(means), max(means) - min(means)
    scale = (len(_BARS) - 1) / span if span else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def lines(found: Sequence[Row]) -> list[str]:
    """Returns the rows as plain lines."""
    several = len(found) > 1
    made = []
    for row in found:
        name = f"{row.run or 'process'} {row.process}: " if several else ""
        label, *rest = filter(None, row.cells)
        loss = f", {shown(row.losses[0], 20)} {row.losses[1][-1]:.4g}" if row.losses[1] else ""
        made.append(f"{name}{label}: {', '.join(rest)}{loss}")
    return made


def table(found: Sequence[Row]) -> Group:
    """Returns the rows as a table, with the loss of the first process below."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    compared = any(row.run for row in found)
    for name in (*(["run"] if compared else []), "process", "work", "done", "rate", "", "state"):
        grid.add_column(name, overflow="fold")
    for row in found:
        cells = (row.run, row.process, *row.cells) if compared else (row.process, *row.cells)
        grid.add_row(*map(Text, cells))  # no markup
    parts: list[Any] = [grid]
    for row in found[:1] if not compared else found:
        name, values = row.losses
        if values:
            place = f"{row.run} " if compared else ""
            parts.append(Text(f"{place}{shown(name, 20)} {sparkline(values)} {values[-1]:.4g}"))
    return Group(*parts)


def follow(workdir: Path, console: Console, *, once: bool = False) -> None:
    """Prints what the run does until it ends.

    Args:
        workdir: Folder of a run or of a comparison.
        console: Where to print.
        once: Print once and return.

    Raises:
        InputError: No run has begun there, or a file is damaged.
    """
    found = rows(workdir)
    if once:
        console.print(table(found))
        return
    if console.is_terminal:
        with Live(table(found), console=console, auto_refresh=False) as live:
            while is_locked(workdir):
                time.sleep(_LOOK_SECONDS)
                live.update(table(rows(workdir)), refresh=True)
            live.update(table(rows(workdir)), refresh=True)
        return
    printed = -LINE_SECONDS
    while is_locked(workdir):
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            _print(console, rows(workdir))
        time.sleep(_LOOK_SECONDS)
    _print(console, rows(workdir))


def _print(console: Console, found: Sequence[Row]) -> None:
    for line in lines(found):
        console.print(Text(line), soft_wrap=True)
    console.file.flush()


def main() -> None:
    """Runs the command."""
    parser = Arguments(prog="mmu watch", description="Follows a run until it ends.")
    parser.add_argument("workdir", type=Path, help="the --workdir of the run")
    parser.add_argument("--once", action="store_true", help="print once and end")
    options = parser.parse_args()
    with one_line(options.workdir):
        if not options.workdir.is_dir():
            raise InputError(f"{options.workdir}: is no folder; give the --workdir of a run")
        follow(options.workdir, Console(markup=False, emoji=False), once=options.once)
        refuse_lost_output()


if __name__ == "__main__":
    steady_streams()
    main()
