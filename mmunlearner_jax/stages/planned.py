"""How many steps a run of `unlearn` has, and what takes them: known before anything is computed."""

from collections.abc import Callable, Sequence
from typing import Any

import optax
from ml_collections import ConfigDict

from mmunlearner_jax.data.rows import count_rows
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.unlearn.methods import Method
from mmunlearner_jax.unlearn.schedule import Schedule, published_schedule, shape_of


def planned(options: ConfigDict, method: Method, forget: int, retain: int) -> Schedule:
    """The schedule of `config.unlearn`.

    Args:
        options: `config.unlearn`.
        method: whose schedule it is.
        forget: batches of a pass over the forget set.
        retain: batches of a pass over the retain pictures.

    Raises:
        InputError: there is no such schedule.
    """
    retains = method.retain is not None
    if options.epochs:
        forget, retain = (-(-batches // options.accumulate) for batches in (forget, retain))
        return published_schedule(forget, retain, options.epochs, retains=retains)
    return Schedule(options.iterations, options.forget_every, options.forget_repeat, retains)


def planned_for(
    options: ConfigDict,
    method: Method,
    pictures: Callable[[str], Sequence[Sample]],
    forget: str,
    retain: str,
) -> Schedule:
    """The schedule of `config.unlearn` for the configs `forget` and `retain` of a benchmark.

    Args:
        options: `config.unlearn`.
        method: whose schedule it is.
        pictures: what is taught with pictures about the people of a config.
        forget: name of the people to forget.
        retain: name of the others.
    """

    def batches(samples: Sequence[Sample], size: int) -> int:
        return -(-count_rows(samples, options.pack) // (size // options.pack))

    return planned(
        options,
        method,
        batches(pictures(forget), options.forget_batch),
        batches(pictures(retain), options.retain_batch),
    )


def lengths(options: ConfigDict, schedule: Schedule) -> tuple[int, int]:
    """How many forget and retain steps an optimizer's state counts, where its rate follows them.

    0 where the rate is the same in all steps: runs of any length then have the same program.
    """
    if options.decay == "constant" and not options.warmup:
        return 0, 0
    forgets, retains = schedule.counts(schedule.iterations)
    if options.optimizers == 1:  # steps that share a state count together
        forgets = retains = forgets + retains
    return forgets, retains or forgets


def optimizers(
    options: ConfigDict, method: Method, schedule: Schedule
) -> tuple[optax.GradientTransformation, optax.GradientTransformationExtraArgs]:
    """The optimizers of retain and forget steps, of `config.unlearn`; their states are alike.

    Raises:
        InputError: the learning rate rises longer than the run lasts.
    """
    forgets, retains = lengths(options, schedule)
    return descending(options, retains), ascending(options, method.by, forgets)


def descending(options: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The optimizer of retain steps.

    The learning rate is part of its state, and no constant of a program: a step goes on at the rate
    that the state was made with.

    Args:
        options: of `config.unlearn`.
        steps: of `lengths`.

    Raises:
        InputError: the learning rate rises longer than the run lasts.
    """
    return _whole(options, _adam(options, steps))


def ascending(
    options: ConfigDict, by: Callable[..., optax.GradientTransformationExtraArgs], steps: int
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of forget steps, whose state is like `descending`'s.

    Args:
        options: of `config.unlearn`.
        by: of the method.
        steps: of `lengths`.

    Raises:
        InputError: the learning rate rises longer than the run lasts.
    """
    adam = _adam(options, steps)
    return _whole(options, by(adam, mask_on=options.mask_on, alpha=options.alpha))


def _adam(options: ConfigDict, steps: int) -> optax.GradientTransformation:
    parts = [
        optax.scale_by_adam(eps=options.adam_eps),
        optax.add_decayed_weights(options.weight_decay),
    ]
    shape = shape_of(decay=options.decay, warmup=options.warmup, steps=steps)
    if shape is not None:
        parts.append(optax.scale_by_schedule(shape))
    at_rate = optax.inject_hyperparams(optax.scale_by_learning_rate)
    return optax.chain(*parts, at_rate(options.learning_rate))


def _whole(options: ConfigDict, transform: optax.GradientTransformation) -> Any:
    # The gradient is clipped before it is masked, as published.
    clip = optax.clip_by_global_norm(options.clip) if options.clip else optax.identity()
    chained = optax.chain(clip, transform)
    if options.accumulate == 1:
        return chained
    return optax.MultiSteps(chained, options.accumulate).gradient_transformation()
