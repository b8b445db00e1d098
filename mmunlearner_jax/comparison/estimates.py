"""Accuracies over seeds, and differences between variants that have forgotten as much."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.comparison.effects import Effect, effect
from mmunlearner_jax.comparison.examiner import FORGET_KIND, overall
from mmunlearner_jax.comparison.jobs import GOLD
from mmunlearner_jax.comparison.measures import Decay, measure
from mmunlearner_jax.data.benchmarks.base import Kind

RESISTS = 0.5  # of a forgotten person's questions still right


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: The mean.
        seeds: Value of every seed.
        half: Half of Student's 95 % interval over the seeds; None with one seed.
        n: Number of questions of all seeds; 0 where they are of several kinds.
    """

    value: float
    seeds: Mapping[int, float]
    half: float | None
    n: int = 0


def estimate(seeds: Mapping[int, float], n: int = 0) -> Estimate | None:
    """Puts an interval beside the mean of the seeds; None without seeds."""
    if not seeds:
        return None
    values = list(seeds.values())
    half = None
    if len(values) > 1:
        half = float(scipy.stats.sem(values) * scipy.stats.t.ppf(0.975, len(values) - 1))
    return Estimate(float(np.mean(values)), dict(seeds), half, n)


def accuracy(cells: Sequence[Cell], variant: str, kind: str, level: str) -> Estimate | None:
    """Returns the fraction of right answers, 0 to 1; None where nothing was asked.

    Args:
        cells: Cells of one forget ratio.
        variant: Name of the variant.
        kind: Kind of question, "SPLIT/MODALITY".
        level: See `Cell.accuracies`.
    """
    seeds, n = {}, 0
    for cell in cells:
        if people := (cell.accuracies(variant, level) or {}).get(kind):
            seeds[cell.seed], count = overall(people)
            n += count
    return estimate(seeds, n)


def above_gold(cells: Sequence[Cell], variant: str, kind: str, level: str) -> Estimate | None:
    """Returns how much more a variant answers than gold at a level, over the seeds that have both.

    Args:
        cells: Cells of one forget ratio.
        variant: Name of the variant.
        kind: Kind of question, "SPLIT/MODALITY".
        level: See `Cell.accuracies`.
    """
    ours, gold = (accuracy(cells, name, kind, level) for name in (variant, GOLD))
    if not (ours and gold):
        return None
    both = ours.seeds.keys() & gold.seeds.keys()
    return estimate({seed: ours.seeds[seed] - gold.seeds[seed] for seed in sorted(both)})


def contrast(
    cells: Sequence[Cell], first: str, second: str, kind: str, level: str, *, falls: bool
) -> Effect | None:
    """Returns how much better one variant does than another, seed by seed and person by person.

    Where scores are to stay, it is what the first keeps more. Where they are to fall, it is what
    the first has less left above the gold model: to fall below it is not to forget more.

    Args:
        cells: Cells of one forget ratio.
        first: Name of a variant.
        second: Name of another.
        kind: Kind of question, "SPLIT/MODALITY".
        level: See `Cell.accuracies`.
        falls: Whether scores of the kind are to fall.

    Returns:
        The difference over the seeds in which both reached the level; None without any.
    """
    differences: dict[tuple[int, str], float] = {}
    for cell in cells:
        mine, theirs = (
            (cell.accuracies(name, level) or {}).get(kind, {}) for name in (first, second)
        )
        gold = (cell.accuracies(GOLD, level) or {}).get(kind, {})
        for person in mine.keys() & theirs.keys():
            own, other = mine[person][0], theirs[person][0]
            if falls:
                floor = gold[person][0] if person in gold else 0.0
                own, other = max(other, floor), max(own, floor)
            differences[cell.seed, person] = own - other
    return effect(dict(sorted(differences.items())))


def over_seeds(cells: Sequence[Cell], variant: str, field: str) -> Estimate | None:
    """Returns the mean of a number that each seed's entry of a variant holds; None without any."""
    entries = {cell.seed: cell.variants.get(variant, {}).get(field) for cell in cells}
    return estimate({seed: float(value) for seed, value in entries.items() if value is not None})


def steps_to(cells: Sequence[Cell], variant: str, level: str) -> Estimate | None:
    """Returns the forget steps that a variant took to a level; None where it reached it nowhere."""
    steps = {
        cell.seed: cell.variants[variant]["matched"][level]["forget_steps"]
        for cell in cells
        if level in cell.variants.get(variant, {}).get("matched", {})
    }
    return estimate(steps)


def decayed(cells: Sequence[Cell], variant: str, kinds: Collection[Kind]) -> Decay | None:
    """Returns signs of decay in a variant's open answers, over seeds; None without open answers.

    Args:
        cells: Cells of one forget ratio.
        variant: Name of the variant.
        kinds: Kinds of the questions whose answers count.
    """
    signs = [
        sign
        for cell in cells
        if variant in cell.variants
        for kind, sign in measure(cell, variant).decay.items()
        if kind in kinds
    ]
    if not signs:
        return None
    counts = [sign.n for sign in signs]
    shares = np.average([sign[:-1] for sign in signs], axis=0, weights=counts)
    return Decay._make([*shares.tolist(), sum(counts)])


def by_person(
    cells: Sequence[Cell], kind: str = FORGET_KIND
) -> dict[tuple[int, str], dict[str, float]]:
    """Returns the accuracy of every last model about each person, by (seed, person) and variant."""
    people: dict[tuple[int, str], dict[str, float]] = {}
    for cell in cells:
        for variant in cell.variants:
            of_kind = (cell.accuracies(variant, "end") or {}).get(kind, {})
            for person, (value, _) in of_kind.items():
                people.setdefault((cell.seed, person), {})[variant] = value
    return people


def resisting(people: Mapping[Any, Mapping[str, float]], variant: str) -> tuple[int, int]:
    """Returns how many people resist, having most of their questions right, and of how many."""
    values = [values[variant] for values in people.values() if variant in values]
    return sum(value > RESISTS for value in values), len(values)
