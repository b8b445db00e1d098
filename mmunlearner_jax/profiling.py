"""Traces of some steps of a stage, for TensorBoard and Perfetto."""

import contextlib
import math
from pathlib import Path

import jax

from mmunlearner_jax.processes import is_first
from mmunlearner_jax.progress import say

WARM_UP = 3  # steps that compile, or wait for the first batch


class Trace:
    """Traces a few steps of one stage; use it as a context manager.

    The first `WARM_UP` steps are left out if the stage has enough others. With several processes,
    only the first one traces, itself and its own devices.
    """

    def __init__(self, folder: Path, *, steps: int, start: int = 0, total: float = math.inf):
        """Decides which steps to trace; opens no file yet.

        Args:
            folder: Folder of the stage; files are written to `plugins/profile/TIME/` in it.
            steps: Number of steps to trace; 0: none.
            start: Number of steps that are already done.
            total: Number of steps of the whole stage.
        """
        self._folder, self._done = folder, start
        self._first = start + max(0, min(WARM_UP, total - start - steps))
        self._last = min(self._first + steps, total) if is_first() else self._first
        self._trace, self._step = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self) -> "Trace":
        self._between()
        return self

    def __exit__(self, *exc: object) -> None:
        self._step.close()
        self._trace.close()

    def step(self) -> None:
        """Marks the end of a step; call it after every step."""
        self._step.close()
        self._done += 1
        self._between()

    def _between(self) -> None:
        if self._done == self._last:
            self._trace.close()
        elif self._first <= self._done < self._last:
            if self._done == self._first:
                self._start()
            annotation = jax.profiler.StepTraceAnnotation("step", step_num=self._done + 1)
            self._step.enter_context(annotation)

    def _start(self) -> None:
        jax.block_until_ready(jax.live_arrays())  # earlier work is not traced
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # a trace of Python's calls would hide and slow the rest
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
        self._trace.callback(self._stop)

    def _stop(self) -> None:
        jax.block_until_ready(jax.live_arrays())
        jax.profiler.stop_trace()
        newest = max((self._folder / "plugins/profile").iterdir())
        say(
            f"profile of {self._done - self._first} steps: tensorboard --logdir={self._folder}"
            f" (pip install tensorboard xprof), or {newest / 'perfetto_trace.json.gz'} at"
            " https://ui.perfetto.dev"
        )
