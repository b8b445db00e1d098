"""Carries out requests one after the other, each on the model that the last one left.

    python -m mmunlearner_jax.sequence --config=configs/orl.py --workdir=runs/sequence

`config.data.requests` names the people of each request, e.g. `(("s3",), ("s7", "s9"))`. Each one is
a run of `mmunlearner_jax.main` in `WORKDIR/request-1`, `request-2` ..., which also asks about the
people of all earlier requests again. `report.html` shows what they come to over time. To resume, or
to add requests at the end, run the same command again.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import app, flags

from mmunlearner_jax import main as one_run
from mmunlearner_jax.command_line import hide_torch, parse_flags, steady_streams
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import plain
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.progress import say

TEACHING = ("prepare", "align", "finetune")  # stages of the first request alone
_NEEDED = ("unlearn", "evaluate", "export")


def folder(workdir: Path, number: int) -> Path:
    """Returns the workdir of a request, from 1."""
    return workdir / f"request-{number}"


def changes(config: Config, workdir: Path, number: int) -> dict[str, Any]:
    """Returns the values, by dotted key, of the run that carries out a request.

    Args:
        config: Config of all requests.
        workdir: Folder of all requests.
        number: The request, from 1.
    """
    values: dict[str, Any] = {"data.requests": config.data.requests[:number]}
    if number > 1:
        values["stages"] = tuple(stage for stage in config.stages if stage not in TEACHING)
        values["model.checkpoint"] = str(folder(workdir, number - 1) / "export")
        if not config.data.benchmark:  # the stage `prepare` wrote it
            values["data.benchmark"] = str(folder(workdir, 1) / "benchmark")
    return values


def run(config: Config, workdir: Path, overrides: Collection[str] = ()) -> None:
    """Carries out all requests of `config.data.requests`, and writes the page.

    Args:
        config: Config of all requests.
        workdir: Folder for everything that they write.
        overrides: Dotted keys of the options on the command line.

    Raises:
        InputError: There is no request, or a stage that each one needs is missing; or as in
            `mmunlearner_jax.main.run`.
    """
    if not config.data.requests:
        config.data.refuse("requests", "the people of each request, (('ID', ...), ...)")
    if missing := [stage for stage in _NEEDED if stage not in config.stages]:
        raise InputError(f"config.stages lacks {', '.join(missing)}, which every request needs")
    workdir = plain(workdir).absolute()
    # Not before `hide_torch`.
    from mmunlearner_jax.reporting.sequence_page import write_page

    for number in range(1, len(config.data.requests) + 1):
        say(f"request {number} of {len(config.data.requests)}")
        own = config.with_values(changes(config, workdir, number))
        one_run.run(own, folder(workdir, number), overrides if number == 1 else ())
    if is_first():
        folders = [folder(workdir, n + 1) for n in range(len(config.data.requests))]
        write_page(workdir, folders, config.data.requests)


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    one_run.program(argv, run)


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
