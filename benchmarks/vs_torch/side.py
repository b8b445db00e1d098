"""A side of the comparison: works that it begins, repeats and ends, in a process of its own.

Apart, neither side's idle threads disturb the other, and each has its own peak of memory.
"""

import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SIZE = 4096  # of the matrices whose product is the peak
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux has them


class Work(NamedTuple):
    """One work of a side.

    Attributes:
        call: does it once, to its end.
        numbers: of a call's result: what both sides must agree on, on the host.
        flops: of one call, two for each multiply-add of a matrix product or a convolution.
    """

    call: Callable[[], Any]
    numbers: Callable[[Any], dict[str, Any]]
    flops: Callable[[], float]


class Side(Protocol):
    """What `compare` asks of a side; works are known by name, and there may be several at once."""

    def facts(self) -> dict[str, Any]:
        """`kind` and `device` in words, `peak_flops` a second of a large matrix product."""
        ...

    def begin(self, name: str) -> dict[str, Any]:
        """Does a work for the first time: `first`, its seconds, and `numbers`."""
        ...

    def timed(self, name: str) -> float:
        """Seconds of another time."""
        ...

    def end(self, name: str) -> dict[str, Any]:
        """Drops it: `flops`, `peak_bytes` since it began, None where the system doesn't say."""
        ...


class Bench:
    """A `Side` in this process.

    Args:
        works: name -> what makes the work ready.
    """

    def __init__(self, works: dict[str, Callable[[], Work]]):
        self._makers, self._works = works, {}

    def begin(self, name: str) -> dict[str, Any]:
        """See `Side`."""
        self.forget_peak()
        work = self._works[name] = self._makers[name]()
        begin = time.perf_counter()
        result = work.call()
        first = time.perf_counter() - begin
        return {"first": first, "numbers": work.numbers(result)}

    def timed(self, name: str) -> float:
        """See `Side`."""
        begin = time.perf_counter()
        self._works[name].call()
        return time.perf_counter() - begin

    def end(self, name: str) -> dict[str, Any]:
        """See `Side`."""
        return {"flops": self._works.pop(name).flops(), "peak_bytes": self.peak()}

    def forget_peak(self) -> None:
        """Has the peak counted anew."""
        if CLEAR.exists():
            CLEAR.write_text("5")

    def peak(self) -> int | None:
        """The most bytes that were held: of the process, or of an accelerator's memory."""
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text() if STATUS.exists() else "")
        return int(found[1]) * 1024 if found else None


class Remote:
    """A `Side` in another process."""

    def __init__(self, make: Callable[..., Side], *args: Any):
        self._process = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_make,
            initargs=(make, args),
        )

    def facts(self) -> dict[str, Any]:
        """See `Side`."""
        return self._process.submit(_ask, "facts").result()

    def begin(self, name: str) -> dict[str, Any]:
        """See `Side`."""
        return self._process.submit(_ask, "begin", name).result()

    def timed(self, name: str) -> float:
        """See `Side`."""
        return self._process.submit(_ask, "timed", name).result()

    def end(self, name: str) -> dict[str, Any]:
        """See `Side`."""
        return self._process.submit(_ask, "end", name).result()


def _make(make: Callable[..., Side], args: tuple[Any, ...]) -> None:
    global _side
    _side = make(*args)


def _ask(method: str, *args: str) -> Any:
    return getattr(_side, method)(*args)


def peak_flops(product: Callable[[], Any]) -> float:
    """Operations a second that a product of two matrices of `SIZE` reaches at best."""
    product()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - begin)
    return 2 * SIZE**3 / min(seconds)
