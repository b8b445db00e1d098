"""When to forget, when to retain, and when to stop: decided before the run."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import optax

from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The alternation: before every n-th retain step there are m forget steps.

    Attributes:
        iterations: How many iterations at most; each has a retain step.
        forget_every: Iterations 0, n, 2n, ... have forget steps.
        forget_repeat: How many each of them has.
        retains: False: no iteration has a retain step.
    """

    iterations: int
    forget_every: int = 1
    forget_repeat: int = 1
    retains: bool = True

    def __post_init__(self):
        for name in ("iterations", "forget_every", "forget_repeat"):
            if getattr(self, name) < 1:
                raise InputError(f"config.unlearn.{name} is {getattr(self, name)}: give 1 or more")

    def steps(self, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yields (iteration, its forget steps, its retain steps) from iteration `start` on."""
        for i in range(start, self.iterations):
            yield i, 0 if i % self.forget_every else self.forget_repeat, int(self.retains)

    def counts(self, iterations: int) -> tuple[int, int]:
        """How many forget and retain steps lie in the first `iterations` iterations."""
        forget = -(-iterations // self.forget_every) * self.forget_repeat
        return forget, iterations * self.retains


def published_schedule(
    forget_batches: int, retain_batches: int, epochs: int = 1, *, retains: bool = True
) -> Schedule:
    """The released alternation: passes over the retain set, forget steps spread evenly.

    The published code runs out of data in a second epoch; here both sets are cycled (D-14). Without
    retain steps the passes are over the forget set.

    Raises:
        InputError: The retain set is the smaller one, where the published code divides by zero.
    """
    if not retains:
        return Schedule(forget_batches * epochs, retains=False)
    if retain_batches < forget_batches:
        raise InputError(
            f"config.unlearn.epochs: a pass over the retain pictures has {retain_batches} steps,"
            f" fewer than the {forget_batches} of the forget set; give epochs=0 with iterations,"
            " forget_every and forget_repeat, or a larger forget_batch"
        )
    return Schedule(retain_batches * epochs, retain_batches // max(1, forget_batches))


def plan_schedule(options: UnlearnConfig, forget: int, retain: int) -> Schedule:
    """Returns the schedule of `config.unlearn`.

    Args:
        options: `config.unlearn`.
        forget: Batches of a pass over the forget set.
        retain: Batches of a pass over the retain pictures.

    Raises:
        InputError: There is no such schedule.
    """
    retains = options.chosen.retain is not None
    if options.epochs:
        forget, retain = (-(-batches // options.accumulate) for batches in (forget, retain))
        return published_schedule(forget, retain, options.epochs, retains=retains)
    return Schedule(options.iterations, options.forget_every, options.forget_repeat, retains)


DECAYS: Mapping[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda _: optax.constant_schedule(1.0),
    "linear": functools.partial(optax.linear_schedule, 1.0, 0.0),
    "cosine": functools.partial(optax.cosine_decay_schedule, 1.0),
}


def shape_of(*, decay: str, warmup: int, steps: int) -> optax.Schedule | None:
    """The learning rate of every step, as a fraction of its height (D-12); None: always all of it.

    Args:
        decay: `"constant"`, or `"linear"` or `"cosine"`, which end at 0 after all steps.
        warmup: Steps in which it rises from 0.
        steps: Of the optimizer, over the whole run.

    Raises:
        InputError: It would never reach its height.
    """
    if decay == "constant" and not warmup:
        return None
    if warmup >= steps:
        raise InputError(
            f"config.unlearn.warmup is {warmup}: give fewer than the {steps} steps of the run"
        )
    rise = optax.linear_schedule(0.0, 1.0, warmup)
    return optax.join_schedules([rise, DECAYS[decay](steps - warmup)], [warmup])


@dataclasses.dataclass(frozen=True)
class StopRule:
    """Stop once few of the forget set's *training* answers are still given exactly.

    Scored questions are never looked at: they have other wordings.

    Attributes:
        remembered: Stop at or below this fraction of exactly right answers; negative: never.
        every: Iterations between two looks.
    """

    remembered: float = -1.0
    every: int = 6

    def due(self, iteration: int) -> bool:
        """Whether to look after this iteration (counted from 0)."""
        return self.remembered >= 0 and (iteration + 1) % self.every == 0

    def reached(self, remembered: float) -> bool:
        """Whether this fraction ends the run; NaN, of a model that diverged, never does."""
        return remembered <= self.remembered
