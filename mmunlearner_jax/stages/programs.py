"""The jitted steps of `unlearn`, shared by runs that differ in data, mask or learning rate."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from mmunlearner_jax.stages.planned import ascending, descending, lengths
from mmunlearner_jax.unlearn.methods import ANSWERS, Loss, Method
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.unlearn.steps import ascent_step, descent_step, exact_counter

# What of `config.unlearn` decides a step, besides the options of its loss.
DECISIVE = (
    *("adam_eps", "weight_decay", "decay", "warmup"),
    *("clip", "alpha", "mask_on", "accumulate"),
)


class Programs(NamedTuple):
    """Jitted functions, see `unlearn.steps`."""

    forget: Callable[..., Any]
    retain: Callable[..., Any]
    exact: Callable[..., Any]


def programs(
    graphdef: nnx.GraphDef, options: ConfigDict, method: Method, schedule: Schedule
) -> Programs:
    """The steps of a run, the same objects where another run has the same.

    Args:
        graphdef: of the model; adapters with a mask and without are two.
        options: `config.unlearn`.
        method: of the run.
        schedule: of the run.
    """
    retain = method.retain or ANSWERS
    forgets, retains = lengths(options, schedule)
    return Programs(
        _forget(graphdef, method.forget, method.by, _told(options, method.forget), forgets),
        _retain(graphdef, retain, _told(options, retain), retains),
        _exact(graphdef),
    )


def _told(options: ConfigDict, loss: Loss) -> FrozenConfigDict:
    own = (loss.options,) if loss.options else ()
    # The learning rate is read from the optimizer's state.
    return FrozenConfigDict(
        {key: options[key] for key in (*DECISIVE, *own)} | {"learning_rate": 1.0}
    )


@functools.lru_cache(32)
def _forget(
    graphdef: nnx.GraphDef,
    loss: Loss,
    by: Callable[..., optax.GradientTransformationExtraArgs],
    options: FrozenConfigDict,
    steps: int,
) -> Callable[..., Any]:
    return ascent_step(graphdef, ascending(options, by, steps), loss.configured(options))


@functools.lru_cache(32)
def _retain(
    graphdef: nnx.GraphDef, loss: Loss, options: FrozenConfigDict, steps: int
) -> Callable[..., Any]:
    return descent_step(graphdef, descending(options, steps), loss.configured(options))


_exact = functools.lru_cache(8)(exact_counter)
