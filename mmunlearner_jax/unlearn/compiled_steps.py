"""The jitted steps of unlearning runs: the same objects where two runs have the same program."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.options import Section
from mmunlearner_jax.unlearn.method import ANSWERS, Loss
from mmunlearner_jax.unlearn.optimizers import Adam, adams
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.unlearn.steps import exact_counter, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import MaskOn

_RATE = 1.0  # steps read the learning rate from the optimizer's state


class Steps(NamedTuple):
    """Jitted functions, see `unlearn.steps`."""

    forget: Callable[..., Any]
    retain: Callable[..., Any]
    exact: Callable[..., Any]


def compiled_steps(graphdef: nnx.GraphDef, options: UnlearnConfig, schedule: Schedule) -> Steps:
    """Returns the steps of a run.

    Args:
        graphdef: Of the model; adapters with a mask and without are two.
        options: `config.unlearn`.
        schedule: Of the run.
    """
    method = options.chosen
    forget_adam, retain_adam = adams(options, schedule)
    retain = method.retain or ANSWERS
    return Steps(
        _forget(
            graphdef,
            method.forget,
            options.own(method.forget),
            forget_adam,
            method.ascends,
            options.mask_on,
            options.alpha,
        ),
        _retain(graphdef, retain, options.own(retain), retain_adam),
        _exact(graphdef),
    )


@functools.lru_cache(32)
def _forget(
    graphdef: nnx.GraphDef,
    loss: Loss,
    options: Section | None,
    adam: Adam,
    ascends: bool,
    mask_on: MaskOn,
    alpha: float,
) -> Callable[..., Any]:
    optimizer = adam.masked(_RATE, ascends=ascends, mask_on=mask_on, alpha=alpha)
    return forget_step(graphdef, optimizer, loss.configured(options))


@functools.lru_cache(32)
def _retain(
    graphdef: nnx.GraphDef, loss: Loss, options: Section | None, adam: Adam
) -> Callable[..., Any]:
    return retain_step(graphdef, adam.descent(_RATE), loss.configured(options))


_exact = functools.lru_cache(8)(exact_counter)
