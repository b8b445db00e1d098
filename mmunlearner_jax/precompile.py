"""Programs compiled before they are called, in threads, while data is read."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


@contextlib.contextmanager
def compiling() -> Iterator[Callable[..., None]]:
    """Compiles, in threads, what is given inside; at its end all of it is compiled.

    Yields:
        A function of a jitted function and of arguments like those that it will be called with,
        which lie on their devices: such a call then finds its program.
    """
    started: dict[tuple, Future] = {}

    def abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    with ThreadPoolExecutor() as pool:

        def ahead(function: Any, *arguments: Any) -> None:
            given = jax.tree.map(abstract, arguments)
            key = function, *jax.tree.leaves(given)
            if key not in started:
                started[key] = pool.submit(lambda: function.lower(*given).compile())

        yield ahead
        for program in started.values():
            program.result()
