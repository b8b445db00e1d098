"""The example benchmarks that the stage `prepare` writes, by `config.prepare.benchmark`."""

from collections.abc import Callable
from dataclasses import dataclass

from mmunlearner_jax.examples import orl
from mmunlearner_jax.examples.flags.benchmark import write_flags_benchmark


@dataclass(frozen=True)
class Example:
    """An example benchmark.

    Attributes:
        write: Writes it: `write(out, seed=..., **options)`.
        options: Fields of `config.prepare` that `write` takes as further options.
    """

    write: Callable[..., None]
    options: tuple[str, ...] = ()


EXAMPLES = {
    **{name: Example(write, ("people",)) for name, write in orl.WRITERS.items()},
    "flags": Example(
        write_flags_benchmark, ("flags_folder", "countries", "renderings", "known_facts")
    ),
}
