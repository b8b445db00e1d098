"""Compares the methods on equal terms: methods by forget ratios by seeds, and a report.

    python -m mmunlearner_jax.compare --config=configs/orl.py --workdir=runs/compare

What is compared, and by which rule settings are chosen: `config.compare`. Every job is a run of
`mmunlearner_jax.main`; they run here, `--jobs` at a time, or elsewhere: `--list` prints their
commands. To resume, run the same command again: what is done is not run again.
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
from mmunlearner_jax.comparison.jobs import Job, jobs
from mmunlearner_jax.comparison.local import run_all
from mmunlearner_jax.files import expanded, plain
from mmunlearner_jax.lock import locked


def arguments(job: Job) -> list[str]:
    """What Python is told, to run a job with the config of this program."""
    config = flags.FLAGS["config"]
    file = config_flags.get_config_filename(config)
    return job.arguments(file, config_flags.get_override_values(config))


def main(argv: list[str]) -> None:
    """Entry point of absl."""
    config = read_config(argv)
    if not flags.FLAGS.workdir:
        sys.exit("error: --workdir is empty: name a folder for what the jobs write")
    signal.signal(signal.SIGTERM, _stop)
    with one_line(Path(flags.FLAGS.workdir)):
        # Jobs are told of one another's folders: the same, wherever the command is given.
        workdir = plain(expanded(flags.FLAGS.workdir))
        todo = jobs(config, workdir)
        if flags.FLAGS.list:
            for job in todo:
                print(job.stage, shlex.join(["python", *arguments(job)]), sep="\t")
        elif flags.FLAGS.dry_run:
            for job in todo:
                print(f"{job.done():>3} of {job.size:>3} models made: {job.name}")
        else:
            from mmunlearner_jax.reporting.comparison_page import (
                write_report,  # not before `hide_torch`
            )

            with locked(workdir):
                run_all(todo, workdir, arguments, flags.FLAGS.jobs)
                markdown = Path(flags.FLAGS.markdown) if flags.FLAGS.markdown else None
                command = ["python", "-m", "mmunlearner_jax.compare", *sys.argv[1:]]
                write_report(workdir, markdown=markdown, command=shlex.join(command))
            return
        refuse_lost_output()


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # jobs are being asked to save
    sys.exit("stopped by SIGTERM: run it again to go on")


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.DEFINE_string("workdir", None, "Folder for everything that the jobs write.")
    flags.DEFINE_bool(
        "list",
        False,
        "Print a line for each job, its stage, a tab and its command, and end. The jobs of stage 2"
        " need all of stage 1, and none of one another.",
    )
    flags.DEFINE_bool("dry_run", False, "Tell what is done and what is not, and end.")
    flags.DEFINE_integer(
        "jobs",
        1,
        "How many run at a time, each with its share of the cores. On a CPU small models are done"
        " soonest with one job per core; an accelerator wants one job.",
        lower_bound=1,
    )
    flags.DEFINE_string("markdown", "", "Write the report as this Markdown file, too.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
