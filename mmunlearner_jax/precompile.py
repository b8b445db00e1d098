"""Compiles programs in threads, before they are called, while data is read."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


@contextlib.contextmanager
def compiling() -> Iterator[Callable[..., None]]:
    """Compiles programs in threads; when the context ends, all are compiled.

    Yields:
        `compile_program(function, *arguments)`, which compiles a jitted function for arguments
        like these. A later call with such arguments reuses the program. The arguments must have
        the shapes, dtypes and shardings of the later call.
    """
    started: dict[tuple, Future] = {}

    def abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    with ThreadPoolExecutor() as pool:

        def ahead(function: Any, *arguments: Any) -> None:
            shapes = jax.tree.map(abstract, arguments)
            key = function, *jax.tree.leaves(shapes)
            if key not in started:
                started[key] = pool.submit(lambda: function.lower(*shapes).compile())

        yield ahead
        for program in started.values():
            program.result()
