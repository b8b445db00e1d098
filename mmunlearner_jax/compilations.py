"""What is compiled, and how long that takes: counted for `results.json`."""

import functools
from collections.abc import Callable

import jax

_PROGRAM = "/jax/core/compile/backend_compile_duration"  # also where one is read from the cache
_HIT = "/jax/compilation_cache/cache_hits"
_events: list[tuple[str, float]] = []


@functools.cache
def _listen() -> None:
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: _events.append((event, duration_secs))
    )
    jax.monitoring.register_event_listener(lambda event, **_: _events.append((event, 0.0)))


def count() -> Callable[[], dict[str, float]]:
    """Begins to count; what it returns tells the count so far.

    Of it: `programs` that were made, how many of them `from_cache`, and the `seconds` that tracing,
    lowering and compiling or reading took, in all threads together.
    """
    _listen()
    start = len(_events)

    def so_far() -> dict[str, float]:
        seen = _events[start:]
        seconds = sum(s for event, s in seen if event.startswith("/jax/core/compile/"))
        programs, hits = (sum(event == e for event, _ in seen) for e in (_PROGRAM, _HIT))
        return {"programs": programs, "from_cache": hits, "seconds": round(seconds, 1)}

    return so_far
