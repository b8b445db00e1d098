"""A side of the comparison: it begins, repeats and ends works in a process of its own.

With separate processes, idle threads of one side do not disturb the other, and each side has a
memory peak of its own.
"""

import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SIZE = 4096  # rows and columns of the matrices whose product measures the peak
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # only on Linux


class Work(NamedTuple):
    """One work of a side.

    Attributes:
        call: Does the work once, and waits until it is done.
        numbers: Returns the numbers of a call's result that both sides must agree on.
        flops: Returns the operations of one call: two for each multiply-add of a matrix product or
            a convolution.
    """

    call: Callable[[], Any]
    numbers: Callable[[Any], dict[str, Any]]
    flops: Callable[[], float]


class Side(Protocol):
    """The interface of a side for `compare`; several works, known by name, may be in progress."""

    def facts(self) -> dict[str, Any]:
        """Returns `kind`, `device` and `peak_flops`, the FLOP/s of a large matrix product."""
        ...

    def begin(self, name: str) -> dict[str, Any]:
        """Does a work for the first time; returns its seconds as `first`, and its `numbers`."""
        ...

    def timed(self, name: str) -> float:
        """Does a work again and returns its seconds."""
        ...

    def end(self, name: str) -> dict[str, Any]:
        """Drops a work; returns `flops`, and `peak_bytes` since its beginning (None: unknown)."""
        ...


class Bench:
    """A `Side` in this process.

    Args:
        works: Functions that prepare the works, by name.
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
        """Resets the peak of memory."""
        if CLEAR.exists():
            CLEAR.write_text("5")

    def peak(self) -> int | None:
        """Returns the peak of the process's memory, or of an accelerator's, in bytes."""
        match = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text() if STATUS.exists() else "")
        return int(match[1]) * 1024 if match else None


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
    """Returns the best FLOP/s of several calls of a product of two matrices of `SIZE`."""
    product()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - begin)
    return 2 * SIZE**3 / min(seconds)
