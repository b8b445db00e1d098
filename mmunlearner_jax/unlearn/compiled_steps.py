"""The jitted steps of unlearning runs.

Two runs that have the same program share the same jitted functions, so JAX compiles them once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.options import Section
from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.lookahead import Ahead
from mmunlearner_jax.unlearn.method import ANSWERS, Loss
from mmunlearner_jax.unlearn.optimizers import Settings, settings
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.unlearn.steps import (
    MEMORIES,
    anchored_step,
    forget_step,
    memory,
    retain_step,
)
from mmunlearner_jax.unlearn.transforms import MaskOn

_RATE = 1.0  # a placeholder: steps read the learning rate from the optimizer's state


class Steps(NamedTuple):
    """The jitted functions of a run.

    Attributes:
        forget: The forget step, see `unlearn.steps.forget_step`.
        retain: The retain step, see `unlearn.steps.retain_step`; with an anchor it takes the
            vanilla model's parameters, too, see `unlearn.steps.anchored_step`.
        memory: Measures what is remembered, see `unlearn.steps.memory`; None where answers are
            decoded for that (`config.unlearn.stop_by="named"`).
    """

    forget: Callable[..., Any]
    retain: Callable[..., Any]
    memory: Callable[..., Any] | None


def compiled_steps(
    graphdef: nnx.GraphDef, vanilla: nnx.GraphDef, options: UnlearnConfig, schedule: Schedule
) -> Steps:
    """Returns the jitted steps of a run.

    Args:
        graphdef: Graph definition of the model, adapters included. An adapted model with a mask
            has another graph definition than one without.
        vanilla: Graph definition of the vanilla model.
        options: Section `config.unlearn`.
        schedule: Schedule of forget and retain steps.
    """
    method, forgetting = options.chosen, options.forgetting
    forget_settings, retain_settings = settings(options, schedule)
    retain = method.retain or ANSWERS
    return Steps(
        _forget(
            graphdef,
            forgetting.forget,
            options.of_loss(forgetting.forget),
            options.looks_ahead,
            forget_settings,
            forgetting.ascends,
            options.mask_on,
            options.alpha,
        ),
        _retain(
            graphdef,
            retain,
            options.of_loss(retain),
            retain_settings,
            options.chosen_anchor,
            options.anchor_weight,
            vanilla,
        ),
        _memory(graphdef, options.stop_by) if options.stop_by in MEMORIES else None,
    )


@functools.lru_cache(32)
def _forget(
    graphdef: nnx.GraphDef,
    loss: Loss,
    options: Section | None,
    ahead: Ahead | None,
    optimizer: Settings,
    ascends: bool,
    mask_on: MaskOn,
    alpha: float,
) -> Callable[..., Any]:
    masked = optimizer.masked(_RATE, ascends=ascends, mask_on=mask_on, alpha=alpha)
    return forget_step(graphdef, masked, loss.configured(options), of=loss.of, ahead=ahead)


@functools.lru_cache(32)
def _retain(
    graphdef: nnx.GraphDef,
    loss: Loss,
    options: Section | None,
    optimizer: Settings,
    anchor: Anchor | None,
    weight: float,
    vanilla: nnx.GraphDef,
) -> Callable[..., Any]:
    descent, terms = optimizer.descent(_RATE), loss.configured(options)
    if anchor is None:
        return retain_step(graphdef, descent, terms)
    return anchored_step(graphdef, descent, terms, anchor, weight, vanilla)


_memory = functools.lru_cache(8)(memory)
