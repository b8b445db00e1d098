"""Runs the jobs of a comparison on this machine, each a process of its own, under one bar."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from mmunlearner_jax import preemption
from mmunlearner_jax.comparison.jobs import Job
from mmunlearner_jax.errors import InputError, shown

Arguments = Callable[[Job], list[str]]  # what Python is told, to run a job


class Running:
    """A job's process, from its start.

    Args:
        job: To run.
        arguments: What Python is told.
        workdir: Of the comparison, for the log and for what is compiled.
        cores: That it is held to; none: it may use all.
    """

    def __init__(self, job: Job, arguments: Sequence[str], workdir: Path, cores: set[int]):
        self.job = job
        self._log = workdir / "logs" / f"{job.name.replace('/', '-')}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        shared = {
            # Jobs differ in seeds, not in programs.
            "JAX_COMPILATION_CACHE_DIR": str((workdir / "compiled").absolute()),
            # Linux: XLA's buffers on a CPU are made anew every step, in huge pages a tenth faster.
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        with self._log.open("w") as out:
            self._child = subprocess.Popen(
                [sys.executable, *arguments], stdout=out, stderr=out, env=shared | os.environ
            )
        if cores:
            os.sched_setaffinity(self._child.pid, cores)  # long before XLA counts them

    def ended(self) -> bool:
        """Whether the process is over.

        Raises:
            InputError: It failed, or was asked to end before all was made.
        """
        if self._child.poll() is None:
            return False
        if self._child.returncode in (preemption.STATUS, 128 + signal.SIGINT):
            raise InputError(f"{self.job.name} was stopped: run the same command again to go on")
        if self._child.returncode:
            raise InputError(f"{self.job.name} failed: {self.said()} ({self._log} has all of it)")
        return True

    def stop(self) -> None:
        """Asks the process to end, which saves: the same command goes on."""
        if self._child.poll() is None:
            self._child.terminate()

    def wait(self) -> None:
        """Until the process is over."""
        self._child.wait()

    def said(self) -> str:
        """What was last written; a progress bar writes over its own line."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def run_all(todo: Sequence[Job], workdir: Path, arguments: Arguments, at_once: int) -> None:
    """Runs all jobs that are not done, in their order as soon as what they need is there.

    Args:
        todo: All jobs of a comparison.
        workdir: Of the comparison.
        arguments: Of a job.
        at_once: How many run at a time, each with its share of the cores.

    Raises:
        InputError: One failed, or was stopped; the others are asked to end and save.
    """
    shares = _shares(at_once)
    made = {job.name: job.done() for job in todo}
    waiting = [job for job in todo if made[job.name] < job.size]
    running: dict[int, Running] = {}  # by share
    total, before = sum(job.size for job in todo), sum(made.values())
    with tqdm(total=total, initial=before, unit="model", file=sys.stderr) as bar:
        try:
            while waiting or running:
                for n in {*range(at_once)} - running.keys():
                    busy = [it.job for it in running.values()]
                    if job := _next(waiting, busy):
                        waiting.remove(job)
                        alone = not busy and not _next(waiting, [job])
                        cores = set() if alone else shares[n]
                        running[n] = Running(job, arguments(job), workdir, cores)
                time.sleep(1)
                bar.set_description(", ".join(it.job.name for it in running.values()))
                bar.set_postfix_str(
                    "; ".join(shown(it.said()[: 60 // at_once]) for it in running.values())
                )
                going = {n: it for n, it in running.items() if not it.ended()}
                made |= {it.job.name: it.job.done() for it in running.values()}
                bar.update(sum(made.values()) - bar.n)
                running = going
        finally:
            for it in running.values():
                it.stop()
            for it in running.values():
                it.wait()


def _next(waiting: Sequence[Job], busy: Sequence[Job]) -> Job | None:
    """Returns the first waiting job that needs no unfinished one."""
    unfinished = {job.workdir for job in (*waiting, *busy)}
    return next((job for job in waiting if unfinished.isdisjoint(job.needs)), None)


def _shares(at_once: int) -> list[set[int]]:
    """The cores of each of some processes; empty where they cannot or need not be held to any.

    Small models waste less on one core each than on all together.
    """
    if at_once == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * at_once
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[n::at_once]) or set(cores) for n in range(at_once)]
