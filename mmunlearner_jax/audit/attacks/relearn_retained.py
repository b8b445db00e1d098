"""Benign relearning: fine-tuning on retained people alone, by nobody who wants an attack."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Target
from mmunlearner_jax.audit.finetuning import finetuner
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


def _attacked(
    target: Target, params: Any, label: str, options: RelearnRetainedConfig
) -> Iterator[tuple[str, np.ndarray]]:
    session = target.session
    samples = session.pictures(session.retain)
    tuner = finetuner(session, options.batch)
    for step, relearned in tuner.follow(params, samples, options.rate, sorted(options.steps)):
        rights = target.answers(relearned, target.questions, f"{label}, step {step}")
        yield f"{step} steps", rights


ATTACK = Attack(
    "Benign relearning",
    "The model is fine-tuned on pictures of the retained people alone.",
    _attacked,
    RelearnRetainedConfig,
)
