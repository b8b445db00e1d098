"""Compares the methods on equal terms: methods by forget ratios by seeds, and a report.

    python -m mmunlearner_jax.compare --config=configs/orl.py --workdir=runs/compare

What is compared, and by which rule settings are chosen: `config.compare`. Every job is a run of
`mmunlearner_jax.main`; they run here one after the other, or elsewhere: `--list` prints their
commands. To resume, run the same command again: what is done is not run again.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from mmunlearner_jax.command_line import hide_torch, parse_flags, read_config
from mmunlearner_jax.comparison.jobs import Job, jobs
from mmunlearner_jax.errors import InputError


def arguments(job: Job) -> list[str]:
    """What Python is told, to run a job with the config of this program."""
    config = flags.FLAGS["config"]
    file = config_flags.get_config_filename(config)
    return job.arguments(file, config_flags.get_override_values(config))


def run(job: Job, workdir: Path) -> Iterator[str]:
    """Runs a job; yields the last line that it said, about once a second.

    Raises:
        InputError: it failed.
    """
    log = workdir / "logs" / f"{job.name.replace('/', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        # Jobs differ in seeds, not in programs.
        "JAX_COMPILATION_CACHE_DIR": str((workdir / "compiled").absolute()),
        # Linux: XLA's buffers on a CPU are made anew every step, in huge pages a tenth faster.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, *arguments(job)],
            stdout=out,
            stderr=out,
            env=shared | os.environ,
        )
        try:
            while child.poll() is None:
                time.sleep(1)
                yield last_line(log)
        finally:
            if child.poll() is None:
                child.terminate()  # saves, and goes on with the same command
                child.wait()
    if child.returncode:
        raise InputError(f"{job.name} failed: {last_line(log)} ({log} has all of it)")


def last_line(log: Path) -> str:
    """What was last written; a progress bar writes over its own line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        said = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(said) if line.strip()), "")


def run_all(todo: list[Job], workdir: Path) -> None:
    """Runs jobs one after the other, under one bar.

    Raises:
        InputError: one failed.
    """
    total, before = sum(job.size for job in todo), sum(job.done() for job in todo)
    with tqdm(total=total, initial=before, unit="model", file=sys.stderr) as bar:
        for job in todo:
            shown = job.done()
            if shown == job.size:
                continue
            bar.set_description(job.name)
            for line in run(job, workdir):
                bar.set_postfix_str(line[:60])
                made = job.done()
                bar.update(made - shown)
                shown = made
            made = job.done()
            bar.update(made - shown)
            if made < job.size:  # it was asked to end, which is no failure
                raise InputError(f"{job.name} was stopped: run the same command again to go on")


def main(argv: list[str]) -> None:
    """Entry point of absl: an `InputError` becomes one line and exit code 1."""
    config = read_config(argv)
    if not flags.FLAGS.workdir:
        sys.exit("error: --workdir is empty: name a folder for what the jobs write")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM: run it again to go on"))
    workdir = Path(flags.FLAGS.workdir).expanduser()
    try:
        todo = jobs(config, workdir)
        if flags.FLAGS.list:
            for job in todo:
                print(job.stage, shlex.join(["python", *arguments(job)]), sep="\t")
        elif flags.FLAGS.dry_run:
            for job in todo:
                print(f"{job.done():>3} of {job.size:>3} models made: {job.name}")
        else:
            from mmunlearner_jax.comparison.page import write_report  # not before `hide_torch`

            run_all(todo, workdir)
            markdown = Path(flags.FLAGS.markdown) if flags.FLAGS.markdown else None
            command = ["python", "-m", "mmunlearner_jax.compare", *sys.argv[1:]]
            write_report(workdir, markdown=markdown, command=shlex.join(command))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    hide_torch()
    flags.DEFINE_string("workdir", None, "Folder for everything that the jobs write.")
    flags.DEFINE_bool(
        "list",
        False,
        "Print a line for each job, its stage, a tab and its command, and end. The jobs of stage 2"
        " need all of stage 1, and none of one another.",
    )
    flags.DEFINE_bool("dry_run", False, "Tell what is done and what is not, and end.")
    flags.DEFINE_string("markdown", "", "Write the report as this Markdown file, too.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
