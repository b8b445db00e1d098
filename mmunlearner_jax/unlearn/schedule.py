"""When a run takes forget and retain steps, at which learning rate, and when it stops."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import optax

from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The alternation of forget and retain steps.

    Every `forget_every`-th iteration, beginning with the first, has `forget_repeat` forget steps.
    Each iteration then has one retain step.

    Attributes:
        iterations: Largest number of iterations.
        forget_every: Number of iterations from one group of forget steps to the next.
        forget_repeat: Number of forget steps in a group; 0: there are retain steps alone.
        retains: Whether iterations have retain steps.
    """

    iterations: int
    forget_every: int = 1
    forget_repeat: int = 1
    retains: bool = True

    def __post_init__(self):
        for name, least in (("iterations", 1), ("forget_every", 1), ("forget_repeat", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"config.unlearn.{name} is {getattr(self, name)}: give {least} or more"
                )
        if not (self.forget_repeat or self.retains):
            raise InputError(
                "config.unlearn.forget_repeat is 0, and config.unlearn.method has no retain steps:"
                " give 1 or more, or another method"
            )

    def steps(self, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yields (iteration, its number of forget steps, its number of retain steps).

        Args:
            start: First iteration that is yielded, counted from 0.
        """
        for i in range(start, self.iterations):
            yield i, 0 if i % self.forget_every else self.forget_repeat, int(self.retains)

    def counts(self, iterations: int) -> tuple[int, int]:
        """Returns the numbers of forget and retain steps in the first `iterations` iterations."""
        forget = -(-iterations // self.forget_every) * self.forget_repeat
        return forget, iterations * self.retains


def published_schedule(
    forget_batches: int, retain_batches: int, epochs: int = 1, *, retains: bool = True
) -> Schedule:
    """Returns the schedule of the published code.

    It passes over the retain set and spreads the forget steps evenly. The published code runs out
    of data in a second epoch; here both sets are repeated as often as needed (D-14). Without retain
    steps the passes are over the forget set.

    Args:
        forget_batches: Number of batches in a pass over the forget set.
        retain_batches: Number of batches in a pass over the retain pictures.
        epochs: Number of passes.
        retains: Whether iterations have retain steps.

    Raises:
        InputError: The retain set has fewer batches than the forget set; the published code divides
            by zero there (D-14).
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
    """Returns the schedule that `config.unlearn` describes.

    Args:
        options: Section `config.unlearn`.
        forget: Number of batches in a pass over the forget set.
        retain: Number of batches in a pass over the retain pictures.

    Raises:
        InputError: The options do not give a schedule for sets of these sizes.
    """
    retains = options.chosen.retain is not None
    if options.epochs:
        forget, retain = (-(-batches // options.accumulate) for batches in (forget, retain))
        schedule = published_schedule(forget, retain, options.epochs, retains=retains)
    else:
        every, repeat = options.forget_every, options.forget_repeat
        schedule = Schedule(options.iterations, every, repeat, retains)
    steps, _ = schedule.counts(schedule.iterations)
    if options.refresh >= max(steps, 1):
        options.refuse("refresh", f"fewer than the {steps} forget steps of the run, or 0: never")
    return schedule


DECAYS: Mapping[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda _: optax.constant_schedule(1.0),
    "linear": functools.partial(optax.linear_schedule, 1.0, 0.0),
    "cosine": functools.partial(optax.cosine_decay_schedule, 1.0),
}


def shape_of(*, decay: str, warmup: int, steps: int) -> optax.Schedule | None:
    """Returns the learning rate of every step, as a fraction of the largest learning rate.

    All methods share these shapes, whereas the published code decays the learning rate of some
    methods only (D-12).

    Args:
        decay: `"constant"`, or `"linear"` or `"cosine"`, which end at 0 after the last step.
        warmup: Number of steps in which the learning rate rises from 0.
        steps: Number of steps that the optimizer counts over the whole run.

    Returns:
        A function of the step, 0 to 1; None where the learning rate is constant.

    Raises:
        InputError: The warm-up is not shorter than the run.
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
    """Ends a run once little of what the vanilla model remembered of the forget set is left.

    The rule looks at the forget set's *training* answers. It never uses scored questions, whose
    wording differs.

    Attributes:
        remembered: Part of what the vanilla model remembered at or below which the run ends;
            negative: never.
        every: Number of iterations from one measurement to the next.
    """

    remembered: float = -1.0
    every: int = 6

    def due(self, iteration: int) -> bool:
        """Returns whether to measure after this iteration (counted from 0)."""
        return self.remembered >= 0 and (iteration + 1) % self.every == 0

    def reached(self, remembered: float, before: float | None = None) -> bool:
        """Returns whether a run ends here; NaN, from a diverged model, never ends it.

        Args:
            remembered: What the model remembers.
            before: What the vanilla model remembered; None: the rule is absolute.
        """
        return remembered <= self.remembered * (1.0 if before is None else before)
