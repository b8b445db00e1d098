"""Compares the methods on equal terms, over forget ratios and seeds, and writes a report.

    python -m mmunlearner_jax.compare --config=configs/orl.py --workdir=runs/compare

`config.compare` says what is compared and how settings are chosen. Every job is a run of
`mmunlearner_jax.main`. The jobs run here, `--jobs` at a time. `--list` prints their commands, for
other machines. To resume, run the same command again: finished jobs are not run again.
"""

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from mmunlearner_jax.command_line import (
    hide_torch,
    one_line,
    parse_flags,
    read_config,
    refuse_lost_output,
    steady_streams,
)
from mmunlearner_jax.comparison.jobs import COMPARE, Job, jobs
from mmunlearner_jax.comparison.local import run_all
from mmunlearner_jax.files import expanded, plain
from mmunlearner_jax.lock import locked
from mmunlearner_jax.provenance import command


def arguments(job: Job) -> list[str]:
    """Returns Python's arguments that run a job with the config of this command."""
    config = flags.FLAGS["config"]
    file = config_flags.get_config_filename(config)
    return job.arguments(file, config_flags.get_override_values(config))


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    config = read_config(argv)
    if not flags.FLAGS.workdir:
        sys.exit("error: --workdir is empty: name a folder for the jobs' files")
    signal.signal(signal.SIGTERM, _stop)
    with one_line(Path(flags.FLAGS.workdir)):
        # Jobs refer to each other's folders, so the paths must not depend on the current folder.
        workdir = plain(expanded(flags.FLAGS.workdir))
        todo = jobs(config, workdir)
        if flags.FLAGS.list:
            for job in todo:
                print(job.stage, shlex.join(["python", *arguments(job)]), sep="\t")
        elif flags.FLAGS.dry_run:
            for job in todo:
                print(f"{job.done():>3} of {job.size:>3} models made: {job.name}")
        else:
            # Not before `hide_torch`.
            from mmunlearner_jax.comparison.cells import check_named_before
            from mmunlearner_jax.comparison.tuning import check_rates, choose
            from mmunlearner_jax.reporting.comparison_page import write_report

            with locked(workdir):
                check_named_before(config.compare, workdir)
                run_all(todo, workdir, arguments, flags.FLAGS.jobs)
                for job in todo:
                    if job.stage == COMPARE:
                        tuned = job.overrides.get("compare.tuned", (job.workdir,))
                        choices = choose([*map(Path, tuned)], config.compare.methods)
                        check_rates(job.workdir, choices)
                markdown = Path(flags.FLAGS.markdown) if flags.FLAGS.markdown else None
                write_report(workdir, markdown=markdown, command=command())
            return
        refuse_lost_output()


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # jobs are being asked to save
    sys.exit("stopped by SIGTERM: run the same command again to go on")


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.DEFINE_string("workdir", None, "Folder for everything that the jobs write.")
    flags.DEFINE_bool(
        "list",
        False,
        "Print a line for each job (its stage, a tab and its command), and exit. Jobs of stage 2"
        " need all jobs of stage 1, but not each other.",
    )
    flags.DEFINE_bool("dry_run", False, "Print how much of each job is done, and exit.")
    flags.DEFINE_integer(
        "jobs",
        1,
        "Number of jobs that run at a time, each with its share of the cores. On a CPU, small"
        " models are fastest with one job per core; on an accelerator, run one job.",
        lower_bound=1,
    )
    flags.DEFINE_string("markdown", "", "Also write the report to this Markdown file.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
