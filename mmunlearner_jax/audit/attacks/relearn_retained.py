"""Benign relearning: fine-tuning on retained people alone, without the intent to attack."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.audit.finetuning import answers_after
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelearnRetainedConfig(Section):
    """Options of the attack `relearn_retained`."""

    key: ClassVar[str] = "audit.relearn_retained"

    steps: tuple[int, ...] = option(
        (10, 40), "Steps after which the model is asked.", unit="steps", least=1
    )
    rate: float = option(3e-4, "Learning rate.", above=0)
    batch: int = option(16, "Questions of a step.", unit="questions", least=1)

    def __post_init__(self):
        super().__post_init__()
        if not self.steps:
            self.refuse("steps", "one or more")


def _attacked(
    target: Target, params: Any, options: RelearnRetainedConfig
) -> Iterator[tuple[str, np.ndarray]]:
    samples = target.session.pictures(target.session.retain)
    rights = answers_after(
        target,
        params,
        samples,
        target.questions,
        rate=options.rate,
        steps=options.steps,
        batch=options.batch,
    )
    for step, of_step in rights.items():
        yield f"{step} steps", of_step


def _cost(options: RelearnRetainedConfig) -> Cost:
    return Cost(len(options.steps), max(options.steps) * options.batch)


ATTACK = Attack(
    "Benign relearning",
    "The model is fine-tuned on pictures of the retained people alone.",
    _attacked,
    _cost,
    RelearnRetainedConfig,
)
