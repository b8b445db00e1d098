"""When to forget, when to retain, and when to stop: decided before the run."""

import dataclasses
from collections.abc import Iterator

from mmunlearner_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The alternation: a retain step every iteration, a forget step before every n-th.

    Attributes:
        iterations: how many iterations at most.
        forget_every: a forget step at iterations 0, n, 2n, ...
    """

    iterations: int
    forget_every: int = 1

    def __post_init__(self):
        if self.iterations < 1:
            raise InputError(f"config.unlearn.iterations is {self.iterations}: give 1 or more")
        if self.forget_every < 1:
            raise InputError(f"config.unlearn.forget_every is {self.forget_every}: give 1 or more")

    def steps(self, start: int = 0) -> Iterator[tuple[int, bool]]:
        """Yields (iteration, whether it forgets) from iteration `start` on."""
        for i in range(start, self.iterations):
            yield i, i % self.forget_every == 0

    def forget_steps(self, iterations: int) -> int:
        """How many forget steps lie in the first `iterations` iterations."""
        return -(-iterations // self.forget_every)


def published_schedule(forget_batches: int, retain_batches: int, epochs: int = 1) -> Schedule:
    """The released alternation: one pass over the retain set, forget steps spread evenly.

    The published code divides by zero where the retain set is the smaller one, and runs out of
    data in a second epoch (D-14); here every iteration then forgets, and both sets are cycled.
    """
    return Schedule(
        iterations=retain_batches * epochs,
        forget_every=max(1, retain_batches // max(1, forget_batches)),
    )


@dataclasses.dataclass(frozen=True)
class StopRule:
    """Stop once few of the forget set's *training* answers are still given exactly.

    Scored questions are never looked at: they have other wordings.

    Attributes:
        remembered: stop at or below this fraction of exactly right answers; negative: never.
        every: iterations between two looks.
    """

    remembered: float = -1.0
    every: int = 6

    def due(self, iteration: int) -> bool:
        """Whether to look after this iteration (counted from 0)."""
        return self.remembered >= 0 and (iteration + 1) % self.every == 0

    def reached(self, remembered: float) -> bool:
        """Whether this fraction ends the run."""
        return remembered <= self.remembered
