"""Jobs on this machine: how many at a time, in which order, and what happens when one fails."""

import os
import signal
import time
from pathlib import Path

import pytest

from mmunlearner_jax.comparison.jobs import Job
from mmunlearner_jax.comparison.local import run_all
from mmunlearner_jax.errors import InputError

# Writes its cores and times, and makes its model.
WORK = """
import os, pathlib, time
begin = time.time()
cores = len(os.sched_getaffinity(0))
time.sleep({seconds})
home = pathlib.Path({home!r})
home.mkdir(parents=True)
(home / "times").write_text(f"{{begin}} {{time.time()}} {{cores}}")
(home / "vanilla").mkdir()
"""


def work(job: Job) -> list[str]:
    return ["-c", WORK.format(home=str(job.workdir), seconds=3 if job.name == "seed-1/a" else 0.2)]


def times(job: Job) -> tuple[float, float, int]:
    begin, end, cores = (job.workdir / "times").read_text().split()
    return float(begin), float(end), int(cores)


def some_jobs(folder: Path) -> list[Job]:
    one, two = folder / "seed-1", folder / "seed-2"
    needs = (one / "a",)
    return [Job(1, one / "a", {}), Job(2, one / "b", {}, needs=needs), Job(1, two / "a", {})]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_jobs_share_the_cores_and_wait_for_what_they_need(tmp_path):
    first, needs_it, another = todo = some_jobs(tmp_path)
    run_all(todo, tmp_path, work, at_once=2)
    assert times(needs_it)[0] > times(first)[1]
    assert times(another)[0] < times(first)[1]  # at the same time
    every = len(os.sched_getaffinity(0))
    assert times(first)[2] + times(another)[2] == max(every, 2)
    assert times(needs_it)[2] == every  # when nothing else is left to do
    before = times(first)
    run_all(todo, tmp_path, work, at_once=2)
    assert times(first) == before  # what is done is not run again


def test_one_that_fails_ends_the_others(tmp_path):
    _, _, last = todo = some_jobs(tmp_path)

    def fails(job: Job) -> list[str]:
        if job is last:
            return ["-c", "import sys; sys.exit('error: no room')"]
        return ["-c", f"import time; time.sleep(60); {work(job)[1]}"]

    begin = time.monotonic()
    with pytest.raises(
        InputError, match="seed-2/a failed: error: no room .*full log: .*seed-2-a.log"
    ):
        run_all(todo, tmp_path, fails, at_once=2)
    assert time.monotonic() - begin < 30
    assert not any(job.done() for job in todo)


def test_one_that_was_stopped_is_no_failure(tmp_path):
    (job,) = some_jobs(tmp_path)[:1]
    stopped = ["-c", f"import sys; sys.exit({128 + signal.SIGTERM})"]
    with pytest.raises(InputError, match="seed-1/a was stopped: run the same command again"):
        run_all([job], tmp_path, lambda _: stopped, at_once=1)
