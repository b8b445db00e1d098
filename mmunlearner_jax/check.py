"""Checks config, data and checkpoint of a run, and lists what its stages have to do; runs none.

    mmu check --config=orl --workdir=runs/orl

It takes the flags of `mmu run`. Nothing is written in the workdir. What the stage `prepare` would
write is made in a temporary folder. Weights are not read, but that every tensor is there and fits.
"""

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmunlearner_jax.command_line import (
    hide_torch,
    one_line,
    parse_flags,
    quiet_libraries,
    read_config,
    refuse_lost_output,
    steady_streams,
)
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.config.fitting import chosen, fitted
from mmunlearner_jax.errors import shown
from mmunlearner_jax.files import expanded, plain
from mmunlearner_jax.lock import is_locked
from mmunlearner_jax.machine import machine
from mmunlearner_jax.main import compared
from mmunlearner_jax.progress import duration

GIB = 2**30


def check(config: Config, workdir: Path, overrides: Collection[str], console: Console) -> None:
    """Makes every check that a run makes before it begins, and prints what there is to do.

    Args:
        config: Config of the run.
        workdir: Folder of the run.
        overrides: Dotted keys of the options on the command line.
        console: Where to print.

    Raises:
        InputError: A run would be refused, or cannot fit the device.
    """
    # These imports must come after `hide_torch`.
    from mmunlearner_jax.memory import device_limit, refuse_misfit
    from mmunlearner_jax.planning.rundown import rundown

    def passed(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    given, devices = config, jax.devices()
    config = fitted(given, len(devices))
    check_config(config, devices)
    if line := chosen(given, config, devices):
        passed(line)
    compared(config, plain(workdir), overrides)
    begun = workdir.exists() and any(workdir.iterdir())
    passed(f"config: fits together{f', and {shown(workdir, 200)}' if begun else ''}")
    if is_locked(workdir):
        passed(f"workdir: a run is going on; mmu watch {shown(workdir, 200)}")
    with _session(config, workdir) as (session, counts):
        passed(f"data: every record can be read\n{counts}".rstrip())
        count = sum(x.size for x in jax.tree.leaves(session.abstract))
        where = _named(session.checkpoint, workdir)
        passed(f"checkpoint: {where}, {count:,} parameters, every tensor fits")
        rows = rundown(session, workdir)
        passed(f"device: {machine()}")
        console.print(_table(rows))
        passed(
            "GiB: weights, gradients, moments and masks on one device, without activations: the"
            " least. Left: by steps that this machine has made in this workdir,"
            " without compiling; unknown where it has made none."
        )
        if (limit := device_limit()) is not None:
            for row in rows:
                if row.held is not None and not row.done:
                    refuse_misfit(config, row.stage, session.model, limit)


def _named(checkpoint: str, workdir: Path) -> str:
    path = Path(checkpoint)
    inside = path.parent == workdir or path.parent.name == _TEMPORARY
    return f"{path.name}/ of the workdir" if inside else shown(checkpoint, 200)


_TEMPORARY = "mmu-check"


@contextlib.contextmanager
def _session(config: Config, workdir: Path) -> Iterator[tuple[Any, str]]:
    """Yields a session with an abstract model, and how many records there are.

    Its checkpoint is the latest model that is there before unlearning.
    """
    from mmunlearner_jax.loading import load_abstract
    from mmunlearner_jax.session import Session, vanilla_checkpoint
    from mmunlearner_jax.stages import prepare

    with tempfile.TemporaryDirectory() as folder:
        home = workdir
        if "prepare" in config.stages and not _prepared(workdir):
            home = Path(folder) / _TEMPORARY
            home.mkdir()
            prepare.run(Session(config, home))
        if (home / "vanilla").exists() or "finetune" not in config.stages:
            checkpoint = vanilla_checkpoint(config, home)
        else:
            checkpoint = config.model.checkpoint or str(home / "initial")
        session = Session(config, home, checkpoint)
        counts = session.check_records()
        made = load_abstract(config, checkpoint, session.mesh)
        session.model = made  # so that nothing is written in the workdir
        yield session, counts


def _prepared(workdir: Path) -> bool:
    from mmunlearner_jax.artefacts import is_done

    return is_done(workdir / "benchmark") and is_done(workdir / "initial")


def _table(rows: Sequence[Any]) -> Table:
    table = Table()
    for name in ("stage", "state", "to do"):
        table.add_column(name, overflow="fold")
    for name in ("GiB", "taken", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        held = "" if row.held is None else f"{row.held / GIB:.3g}"
        taken = "" if row.taken is None else duration(row.taken)
        left = "" if row.done or not row.works else "unknown"
        left = left if row.left is None else duration(row.left)
        todo = "\n".join(
            f"{work.label}: {work.total - work.done:,} {work.unit}s"
            for work in row.works
            if work.total > work.done
        )
        table.add_row(row.stage, _state(row), todo, held, taken, left)
    return table


def _state(row: Any) -> str:
    if row.done:
        return "done"
    begun = [work for work in row.works if work.done]
    if not begun:
        return "to do" if row.done is not None else "runs, or goes on"
    work = begun[-1]
    return f"goes on after {work.label}, {work.unit} {work.done:,} of {work.total:,}"


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    config = read_config(argv)
    quiet_libraries()
    workdir = expanded(flags.FLAGS.workdir or ".")
    with one_line(workdir):
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        check(config, workdir, overrides, Console(markup=False, emoji=False))
        refuse_lost_output()


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
