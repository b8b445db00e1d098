"""Accuracies over seeds and people, and where MMUnlearner differs from another variant.

Two intervals stand beside every mean, because each alone is too narrow or too wide: Student's over
the seeds, of which there are few, and a bootstrap over people, who are many but share a model.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from mmunlearner_jax.comparison.cells import OWN, Cell
from mmunlearner_jax.comparison.measures import Decay, Kind, measure
from mmunlearner_jax.evaluation.kinds import FORGET
from mmunlearner_jax.evaluation.scores import Score, mean_score

RESISTS = 0.5  # of a forgotten person's questions still right

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: The mean.
        seeds: The value of every seed.
        t: The same as a score with Student's 95 % interval; None with one seed.
        people: Mean over the people of all seeds, each one weighing the same, with a bootstrap
            interval over them; None where a value belongs to no person.
        n: Questions of all seeds; 0 where they are of several kinds.
    """

    value: float
    seeds: dict[int, float]
    t: Score | None
    people: Score | None
    n: int


def t_score(values: Sequence[float]) -> Score | None:
    """A mean with Student's 95 % interval, as `scores.mean_score` gives it; None for one value."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:  # scipy gives nan
        return {"value": mean, "n": len(values), "ci95": [mean, mean]}
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return {"value": mean, "n": len(values), "ci95": [float(low), float(high)]}


def estimate(
    seeds: Mapping[int, float], people: Sequence[float] | None, n: int = 0
) -> Estimate | None:
    """Puts both intervals beside the mean of the seeds; None without seeds."""
    if not seeds:
        return None
    values = list(seeds.values())
    over_people = mean_score(people) if people else None
    return Estimate(float(np.mean(values)), dict(seeds), t_score(values), over_people, n)


def accuracy(cells: Sequence[Cell], variant: str, kind: Kind) -> Estimate | None:
    """Multiple-choice accuracy in 0 to 1; None where nothing was asked.

    Args:
        cells: Of one forget ratio.
        variant: Its name.
        kind: Split and modality.
    """
    seeds, people, n = {}, [], 0
    for cell in cells:
        if variant in cell.variants and kind in (found := measure(cell, variant)).people:
            seeds[cell.seed], count = found.means[kind]["classification"]
            people += found.people[kind].values()
            n += count
    return estimate(seeds, people, n)


def above_chance(value: Any, chance: float) -> Any:
    """How far accuracies are above guessing; to fall below that is to forget no more."""
    return np.maximum(0.0, value - chance)


def advantage(cells: Sequence[Cell], rival: str, kind: Kind, *, falls: bool) -> Estimate | None:
    """What MMUnlearner has over a rival, seed by seed and person by person; above 0 it is better.

    Where scores are meant to fall, it is how much less of a seed's accuracy is left above chance;
    elsewhere how much more is right. People are drawn within their seeds; that the same person may
    be asked about in several seeds is left out of account.

    Args:
        cells: Of one forget ratio.
        rival: Name of the other variant.
        kind: Split and modality.
        falls: Whether its scores are meant to fall.

    Returns:
        Differences of accuracies, -1 to 1, over the cells that have both; None without any.
    """
    seeds, pairs, n = {}, [], 0
    floor = chance(cells, kind) if falls else None
    for cell in cells:
        if not {OWN, rival} <= cell.variants.keys():
            continue
        own, other = measure(cell, OWN), measure(cell, rival)
        if kind not in own.people or kind not in other.people:
            continue
        mine, count = own.means[kind]["classification"]
        seeds[cell.seed] = float(_gain(mine, other.means[kind]["classification"][0], floor))
        names = list(own.people[kind])
        pairs.append([np.array([m.people[kind][p] for p in names]) for m in (own, other)])
        n += count
    found = estimate(seeds, None, n)
    return found and dataclasses.replace(found, people=_over_people(pairs, floor))


def _gain(own: Any, other: Any, floor: float | None) -> Any:
    if floor is None:
        return own - other
    return above_chance(other, floor) - above_chance(own, floor)


def _over_people(pairs: Sequence[Sequence[np.ndarray]], floor: float | None) -> Score | None:
    """The bootstrap over people of the mean of the seeds' gains; None with one person in a seed.

    Draws from n people vary by (n - 1) / n of what people vary, which matters where n is 2, so the
    interval is widened.

    Args:
        pairs: By seed, accuracies of the same people, own and the other's.
        floor: See `_gain`.
    """
    everybody = [np.arange(len(own)) for own, _ in pairs]
    if min(map(len, everybody)) < 2:
        return None

    def mean_gain(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        gains = [
            _gain(own[people].mean(axis), other[people].mean(axis), floor)
            for (own, other), people in zip(pairs, drawn, strict=True)
        ]
        return np.mean(gains, axis=0)

    rng = np.random.default_rng(0)
    found = stats.bootstrap(everybody, mean_gain, method="percentile", batch=1000, rng=rng)
    low, high = found.confidence_interval
    value, fewest = float(mean_gain(*everybody)), min(map(len, everybody))
    wide = np.sqrt(fewest / (fewest - 1))
    ends = [float(value + wide * (end - value)) for end in (low, high)]
    return {"value": value, "n": sum(map(len, everybody)), "ci95": ends}


def verdict(found: Estimate) -> Verdict:
    """Whether MMUnlearner is better or worse: only where both intervals leave out 0, on one side.

    With one seed there is no interval over seeds, and so no difference; seeds that agree to the
    last question do not tell how far seeds differ.
    """
    if found.t is None or found.people is None:
        return "tie"
    intervals = np.array([found.t["ci95"], found.people["ci95"]])
    if intervals[0, 0] == intervals[0, 1]:
        return "tie"
    if (intervals > 0).all():
        return "better"
    return "worse" if (intervals < 0).all() else "tie"


def kept(cells: Sequence[Cell], variant: str, kinds: Sequence[Kind]) -> Estimate | None:
    """Mean accuracy over those of some kinds that were asked, in 0 to 1; none by person."""
    seeds = {}
    for cell in cells:
        if variant in cell.variants:
            means = measure(cell, variant).means
            found = [
                means[k]["classification"][0] for k in kinds if "classification" in means.get(k, {})
            ]
            if found:
                seeds[cell.seed] = float(np.mean(found))
    return estimate(seeds, None)


def chance(cells: Sequence[Cell], kind: Kind = FORGET) -> float:
    """What guessing gives in multiple choice, mean over the cells that were asked; 0: none was."""
    measured = [measure(c, v).chance for c in cells for v in c.variants]
    found = [by_kind[kind] for by_kind in measured if kind in by_kind]
    return float(np.mean(found)) if found else 0.0


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Those than which no other is as good in both and better in one, from left to right.

    Args:
        points: (what is left, what is kept) by name: little left and much kept is good.
    """
    return sorted(
        (
            name
            for name, (x, y) in points.items()
            if not any(ox <= x and oy >= y and (ox, oy) != (x, y) for ox, oy in points.values())
        ),
        key=lambda name: points[name],
    )


def decayed(cells: Sequence[Cell], variant: str, kinds: Collection[Kind]) -> Decay | None:
    """Signs of decay in a variant's open answers, over seeds; None without open answers.

    Args:
        cells: Of one forget ratio.
        variant: Its name.
        kinds: Of the questions whose answers count.
    """
    found = [
        sign
        for cell in cells
        if variant in cell.variants
        for kind, sign in measure(cell, variant).decay.items()
        if kind in kinds
    ]
    if not found:
        return None
    counts = [sign.n for sign in found]
    shares = np.average([sign[:-1] for sign in found], axis=0, weights=counts)
    return Decay._make([*shares.tolist(), sum(counts)])


def by_person(
    cells: Sequence[Cell], kind: Kind = FORGET
) -> dict[tuple[int, str], dict[str, float]]:
    """Accuracy of every forgotten person, by (seed, person) and variant, `vanilla` being before.

    Args:
        cells: Of one forget ratio.
        kind: Split and modality.
    """
    people: dict[tuple[int, str], dict[str, float]] = {}
    for cell in cells:
        for variant in cell.variants:
            for person, value in measure(cell, variant).people.get(kind, {}).items():
                people.setdefault((cell.seed, person), {})[variant] = value
    return people


def resisting(people: Mapping[Any, Mapping[str, float]], variant: str) -> tuple[int, int]:
    """How many people resist, having more than half of their questions right, and of how many."""
    found = [values[variant] for values in people.values() if variant in values]
    return sum(value > RESISTS for value in found), len(found)
