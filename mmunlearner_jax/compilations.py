"""Counts compilations and their seconds, for `results.json`."""

import functools
from collections.abc import Callable

import jax

_PROGRAM = "/jax/core/compile/backend_compile_duration"  # also for a program from the cache
_HIT = "/jax/compilation_cache/cache_hits"
_events: list[tuple[str, float]] = []


@functools.cache
def _listen() -> None:
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: _events.append((event, duration_secs))
    )
    jax.monitoring.register_event_listener(lambda event, **_: _events.append((event, 0.0)))


def count() -> Callable[[], dict[str, float]]:
    """Starts a count.

    Returns:
        A function that returns the count so far: the number of `programs`, how many of them came
        `from_cache`, and the `seconds` that all threads together took to trace, lower and compile
        or read them.
    """
    _listen()
    start = len(_events)

    def so_far() -> dict[str, float]:
        seen = _events[start:]
        seconds = sum(s for event, s in seen if event.startswith("/jax/core/compile/"))
        programs, hits = (sum(event == e for event, _ in seen) for e in (_PROGRAM, _HIT))
        return {"programs": programs, "from_cache": hits, "seconds": round(seconds, 1)}

    return so_far
