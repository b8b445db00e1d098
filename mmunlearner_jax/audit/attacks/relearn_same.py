"""Relearning: a few fine-tuning steps on one photograph a person; the others are asked about.

A gold model, which never saw the faces, says how fast something new is learned.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.audit.averages import mean_of_trials
from mmunlearner_jax.audit.finetuning import answers_after
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelearnSameConfig(Section):
    """Options of the attack `relearn_same`."""

    key: ClassVar[str] = "audit.relearn_same"

    steps: tuple[int, ...] = option(
        (1, 5, 10, 20, 40), "Steps after which the model is asked.", unit="steps", least=1
    )
    rates: tuple[float, ...] = option((1e-4, 3e-4, 1e-3), "Learning rates.", above=0)
    photographs: int = option(1, "Photographs of each person that are shown.", least=1)
    choices: int = option(2, "Choices of photographs, over which results are averaged.", least=1)
    batch: int = option(16, "Questions of a step.", unit="questions", least=1)

    def __post_init__(self):
        super().__post_init__()
        for name in ("steps", "rates"):
            if not getattr(self, name):
                self.refuse(name, "one or more")


def shown_photographs(
    samples: Sequence[Sample], count: int, rng: np.random.Generator
) -> set[bytes]:
    """Returns so many pictures of each person, drawn at random.

    Args:
        samples: Samples about the people.
        count: Pictures of each person; one with fewer has all of them shown.
        rng: Draws the pictures.
    """
    people: dict[str, dict[bytes, None]] = {}
    for sample in samples:
        if sample.image is not None:
            people.setdefault(sample.person, {})[sample.image] = None
    return {
        picture
        for pictures in people.values()
        for picture in (list(pictures)[n] for n in rng.permutation(len(pictures))[:count])
    }


def _attacked(
    target: Target, params: Any, options: RelearnSameConfig
) -> Iterator[tuple[str, np.ndarray]]:
    samples, rng = target.session.pictures(target.session.forget), target.rng()
    shown = [shown_photographs(samples, options.photographs, rng) for _ in range(options.choices)]
    for rate in options.rates:
        made = [
            answers_after(
                target,
                params,
                [sample for sample in samples if sample.image in pictures],
                [None if q.image in pictures else q for q in target.questions],
                rate=rate,
                steps=options.steps,
                batch=options.batch,
            )
            for pictures in shown
        ]
        for step in sorted(set.intersection(*(set(rights) for rights in made))):
            yield f"{step} steps at {rate:g}", mean_of_trials([rights[step] for rights in made])


def _cost(options: RelearnSameConfig) -> Cost:
    runs = options.choices * len(options.rates)
    return Cost(runs * len(options.steps), runs * max(options.steps) * options.batch)


ATTACK = Attack(
    "Relearning, same people",
    "The model is fine-tuned for a few steps on one photograph of each forgotten person, and asked"
    " about their other photographs. The mean over steps and rates counts, as every model learns"
    " them in the end.",
    _attacked,
    _cost,
    RelearnSameConfig,
    counts="mean",
)
