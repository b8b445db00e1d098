"""Relearning of other people: some of the forgotten people are shown whole; the rest are asked."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.audit.averages import mean_of_trials
from mmunlearner_jax.audit.finetuning import answers_after
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelearnOthersConfig(Section):
    """Options of the attack `relearn_others`."""

    key: ClassVar[str] = "audit.relearn_others"

    shown: tuple[float, ...] = option(
        (0.1, 0.2, 0.3), "Fractions of the forgotten people that are shown.", above=0, below=1
    )
    steps: int = option(40, "Fine-tuning steps.", unit="steps", least=1)
    rate: float = option(3e-4, "Learning rate.", above=0)
    choices: int = option(2, "Choices of people, over which results are averaged.", least=1)
    batch: int = option(16, "Questions of a step.", unit="questions", least=1)

    def __post_init__(self):
        super().__post_init__()
        if not self.shown:
            self.refuse("shown", "one or more")


def _people(target: Target) -> list[str]:
    return sorted({question.person for question in target.questions})


def _attacked(
    target: Target, params: Any, options: RelearnOthersConfig
) -> Iterator[tuple[str, np.ndarray]]:
    samples = target.session.pictures(target.session.forget)
    people, rng = _people(target), target.rng()
    counts = (round(part * len(people)) for part in options.shown)
    # With few people, several fractions come to the same number of them.
    for count in sorted({min(max(1, count), len(people) - 1) for count in counts}):
        rights = []
        for _ in range(options.choices):
            shown = {people[n] for n in rng.permutation(len(people))[:count]}
            made = answers_after(
                target,
                params,
                [sample for sample in samples if sample.person in shown],
                [None if q.person in shown else q for q in target.questions],
                rate=options.rate,
                steps=(options.steps,),
                batch=options.batch,
            )
            rights += made.values()
        if rights:
            yield f"{count} of {len(people)} shown", mean_of_trials(rights)


def _lacks(target: Target, _: RelearnOthersConfig) -> str:
    return "" if len(_people(target)) > 1 else "only one person was forgotten"


def _cost(options: RelearnOthersConfig) -> Cost:
    runs = options.choices * len(options.shown)
    return Cost(runs, runs * options.steps * options.batch)


ATTACK = Attack(
    "Relearning, other people",
    "The model is fine-tuned on all photographs of a few forgotten people, and asked about the"
    " others.",
    _attacked,
    _cost,
    RelearnOthersConfig,
    lacks=_lacks,
)
