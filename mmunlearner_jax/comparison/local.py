"""Runs the jobs of a comparison as processes on this machine, with one progress bar."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmunlearner_jax import preemption
from mmunlearner_jax.comparison.jobs import Job
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.progress import Progress

Arguments = Callable[[Job], list[str]]  # returns Python's arguments that run a job


class Running:
    """A job's process, which the constructor starts.

    Args:
        job: The job.
        arguments: Python's arguments.
        workdir: Folder of the comparison, for the log and the compiled programs.
        cores: Numbers of the cores that the process may use; empty: all cores.
    """

    def __init__(self, job: Job, arguments: Sequence[str], workdir: Path, cores: set[int]):
        self.job = job
        self._log = workdir / "logs" / f"{job.name.replace('/', '-')}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        shared = {
            # All jobs compile the same programs; they differ in seeds.
            "JAX_COMPILATION_CACHE_DIR": str((workdir / "compiled").absolute()),
            # On a CPU, XLA allocates its buffers at every step. Huge pages (Linux) save a tenth.
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        with self._log.open("w") as out:
            self._child = subprocess.Popen(
                [sys.executable, *arguments], stdout=out, stderr=out, env=shared | os.environ
            )
        if cores:
            os.sched_setaffinity(self._child.pid, cores)  # long before XLA counts them

    def ended(self) -> bool:
        """Whether the process has ended.

        Raises:
            InputError: The process failed, or was stopped before the job was done.
        """
        if self._child.poll() is None:
            return False
        if self._child.returncode in (preemption.STATUS, 128 + signal.SIGINT):
            raise InputError(f"{self.job.name} was stopped: run the same command again to go on")
        if self._child.returncode:
            raise InputError(f"{self.job.name} failed: {self.said()} (full log: {self._log})")
        return True

    def stop(self) -> None:
        """Asks the process to save a checkpoint and end; the same command resumes it."""
        if self._child.poll() is None:
            self._child.terminate()

    def wait(self) -> None:
        """Waits until the process has ended."""
        self._child.wait()

    def said(self) -> str:
        """Returns the last line of the log; each state of a progress bar counts as a line."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def run_all(todo: Sequence[Job], workdir: Path, arguments: Arguments, at_once: int) -> None:
    """Runs all unfinished jobs in order, each as soon as the jobs that it needs are done.

    Args:
        todo: All jobs of a comparison.
        workdir: Folder of the comparison.
        arguments: Returns Python's arguments that run a job.
        at_once: Number of jobs that run at a time, each with its share of the cores.

    Raises:
        InputError: A job failed or was stopped. The others are asked to save and end.
    """
    shares = _shares(at_once)
    made = {job.name: job.done() for job in todo}
    waiting = [job for job in todo if made[job.name] < job.size]
    running: dict[int, Running] = {}  # by share
    total, before = sum(job.size for job in todo), sum(made.values())
    with Progress("models", total, unit="model", start=before) as progress:
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
                progress.note(
                    "; ".join(
                        f"{it.job.name}: {shown(it.said()[: 60 // at_once])}"
                        for it in running.values()
                    )
                )
                going = {n: it for n, it in running.items() if not it.ended()}
                made |= {it.job.name: it.job.done() for it in running.values()}
                progress.update(sum(made.values()) - progress.done)
                running = going
        finally:
            for it in running.values():
                it.stop()
            for it in running.values():
                it.wait()


def _next(waiting: Sequence[Job], busy: Sequence[Job]) -> Job | None:
    """Returns the first waiting job that needs no unfinished job."""
    unfinished = {job.workdir for job in (*waiting, *busy)}
    return next((job for job in waiting if unfinished.isdisjoint(job.needs)), None)


def _shares(at_once: int) -> list[set[int]]:
    """Divides the cores among processes; the sets are empty if processes may use all cores.

    Small models run faster on one core each than all together on all cores.
    """
    if at_once == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * at_once
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[n::at_once]) or set(cores) for n in range(at_once)]
