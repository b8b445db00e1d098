"""What a comparison shows, worked out once for page and Markdown, and its verdict in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.comparison import estimates
from mmunlearner_jax.comparison.cells import (
    OWN,
    Cell,
    is_control,
    label,
    names,
    read_cells,
)
from mmunlearner_jax.comparison.estimates import Estimate, verdict
from mmunlearner_jax.comparison.jobs import RETAIN_ONLY, VANILLA
from mmunlearner_jax.comparison.measures import Decay, measure
from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.evaluation.kinds import FORGET, Kinds, with_unknown
from mmunlearner_jax.evaluation.selection import chosen_by

SIMPLE = ("no_mask", "random_mask")  # the mask must do better than both to matter


class Settings(NamedTuple):
    """How a variant was run: a list has an entry per seed, in order.

    Attributes:
        learning_rates: The chosen ones.
        forget_steps: That were taken.
        remembered: Accuracy about the forget set's pictures that are set apart, at the end.
        seconds: Mean over the seeds, of all learning rates, compiling and scoring.
        density: Of the mask, mean over the seeds; None without one.
        perplexity: Of the retain set's taught text answers, mean over the seeds; None unmeasured.
    """

    learning_rates: list[float]
    forget_steps: list[int]
    remembered: list[float]
    seconds: float | None
    density: float | None
    perplexity: float | None


class VariantResult(NamedTuple):
    """One variant at one forget ratio.

    Attributes:
        name: Of the variant.
        label: What a page calls it.
        control: Whether it is MMUnlearner with one thing changed.
        accuracies: By kind of question.
        kept: Mean accuracy of what is to be kept.
        advantages: What MMUnlearner has over it, by kind; {} where there is nothing to compare.
        faces: Signs of decay in answers about the forgotten people's photographs.
        others: The same in all other open answers.
        resisting: How many forgotten people resist, and of how many.
        settings: How it was run.
    """

    name: str
    label: str
    control: bool
    accuracies: dict[Kind, Estimate]
    kept: Estimate | None
    advantages: dict[Kind, Estimate]
    faces: Decay | None
    others: Decay | None
    resisting: tuple[int, int]
    settings: Settings

    @property
    def unlearned(self) -> bool:
        """Whether anything was forgotten on purpose."""
        return self.name not in (VANILLA, RETAIN_ONLY)

    @property
    def rival(self) -> bool:
        """Whether MMUnlearner is compared with it."""
        return self.unlearned and self.name != OWN

    def apart(self, word: str) -> list[Kind]:
        """The kinds on which MMUnlearner is "better", "worse" or a "tie"."""
        return [kind for kind, found in self.advantages.items() if verdict(found) == word]

    @property
    def outcome(self) -> str:
        """MMUnlearner "wins" (better somewhere, worse nowhere), "loses", is "mixed", or "ties"."""
        better, worse = self.apart("better"), self.apart("worse")
        if better and worse:
            return "mixed"
        return "wins" if better else "loses" if worse else "ties"


class Comparison:
    """All cells of a workdir, and what follows from them.

    Attributes:
        cells: That were found.
        ratios: Forget ratios, in percent.
        seeds: Of the cells.
        about: What each kind of scored questions is about, in the order of tables.
        kinds: Kinds of multiple-choice questions that were asked, in that order.
        to_keep: Kinds in the mean of what is to be kept, in that order.
        chance: What guessing gives on the forgotten faces.
        rows: By ratio, the variants.
    """

    def __init__(self, workdir: Path):
        """Reads everything once.

        Raises:
            InputError: There is nothing to read, or a file of a variant is missing.
        """
        self.cells = read_cells(workdir)
        self.ratios = sorted({cell.ratio for cell in self.cells})
        self.seeds = sorted({cell.seed for cell in self.cells})
        self.chance = estimates.chance(self.cells)
        self.about = _about(self.cells)
        self.to_keep = chosen_by(self.about)
        self.rows = {ratio: self._rows(self.at(ratio)) for ratio in self.ratios}
        asked = {kind for rows in self.rows.values() for row in rows for kind in row.accuracies}
        self.kinds = [kind for kind in self.about if kind in asked]

    @property
    def middle(self) -> int:
        """The ratio that figures show."""
        return self.ratios[len(self.ratios) // 2]

    def at(self, ratio: int) -> list[Cell]:
        """The cells of one ratio."""
        return [cell for cell in self.cells if cell.ratio == ratio]

    def row(self, ratio: int, name: str) -> VariantResult | None:
        """One variant, if it was run."""
        return next((row for row in self.rows[ratio] if row.name == name), None)

    def _rows(self, cells: list[Cell]) -> list[VariantResult]:
        people = estimates.by_person(cells)
        return [_result(cells, name, people, self.about) for name in names(cells)]

    def front(self, ratio: int, kind: Kind | None = None) -> list[str]:
        """Names on the Pareto front of little left of the faces and much kept.

        Args:
            ratio: In percent.
            kind: What is to be kept; None: the mean of all.
        """
        points = {}
        for row in self.rows[ratio]:
            keep = row.accuracies.get(kind) if kind else row.kept
            if row.unlearned and keep and FORGET in row.accuracies:
                left = float(estimates.above_chance(row.accuracies[FORGET].value, self.chance))
                points[row.name] = left, keep.value
        return estimates.pareto(points)

    def outcomes(self, ratio: int, *, control: bool) -> dict[str, list[VariantResult]]:
        """Methods or controls by how MMUnlearner fares against them."""
        rivals = [row for row in self.rows[ratio] if row.rival and row.control == control]
        found = {
            outcome: [row for row in rivals if row.outcome == outcome and row.advantages]
            for outcome in ("wins", "loses", "mixed", "ties")
        }
        return {outcome: rows for outcome, rows in found.items() if rows}

    def sentences(self, ratio: int, *, control: bool) -> list[tuple[str, str]]:
        """How MMUnlearner fares against methods or controls, each as its beginning and the rest."""
        said = []
        for outcome, rows in self.outcomes(ratio, control=control).items():
            if outcome == "ties":
                said.append(
                    ("No difference", f" shown from {'; '.join(row.label for row in rows)}.")
                )
                continue
            for row in rows:
                apart = {word: row.apart(word) for word in ("better", "worse")}
                on = [f"{word} on {self.listed(kinds)}" for word, kinds in apart.items() if kinds]
                rest = f"; no difference on the other {len(row.apart('tie'))} kinds of question."
                if outcome == "mixed":
                    said.append((f"Mixed beside {row.label}:", " " + "; ".join(on) + rest))
                else:
                    word, _, where = on[0].partition(" ")
                    said.append((f"{word.capitalize()} than {row.label}", f" {where}{rest}"))
        return said

    def mask_verdict(self) -> str:
        """What MMUnlearner beside no mask and a random one bears out about the mask, no more."""
        rivals = {
            (ratio, name): row
            for ratio in self.ratios
            for name in SIMPLE
            if (row := self.row(ratio, name)) and row.advantages
        }
        if {name for _, name in rivals} != set(SIMPLE):
            return (
                "A variant with a random mask or one without a mask is missing: nothing here tells"
                " what the mask contributes."
            )
        if len(self.seeds) == 1:
            return (
                "There is one seed, so nothing can be called a difference: nothing here tells what"
                " the mask contributes."
            )
        said = [
            f"At {ratio} % it is {word} than “{row.label.lower()}” on {self.listed(kinds)}."
            for (ratio, _), row in rivals.items()
            for word in ("better", "worse")
            if (kinds := row.apart(word))
        ]
        if not said:
            ratios = ", ".join(f"{ratio} %" for ratio in sorted({ratio for ratio, _ in rivals}))
            return (
                "MMUnlearner does not separate from its simplest controls: no mask at all, and a"
                " random mask of the same density, cannot be told from it on any kind of"
                f" question, with {ratios} forgotten. These runs do not show that the mask does"
                " anything."
            )
        both = [
            f"{ratio} %"
            for ratio in self.ratios
            if all((ratio, n) in rivals and rivals[ratio, n].outcome == "wins" for n in SIMPLE)
        ]
        if both:
            said.append(f"Better than both, and worse nowhere, at {', '.join(both)}.")
        else:
            said.append(
                "At no ratio is it better than both and worse nowhere: these runs do not show that"
                " the mask, rather than the alternation, does this."
            )
        return " ".join(said)

    def listed(self, kinds: Sequence[Kind]) -> str:
        """Kinds of questions by what they are about."""
        return ", ".join(f"“{self.about[kind].label.lower()}”" for kind in kinds)

    def blocks(self, ratio: int) -> dict[str, float]:
        """Density of the mask by parameter name, mean over the seeds."""
        found = [cell.blocks for cell in self.at(ratio) if cell.blocks]
        return (
            {name: float(np.mean([b[name] for b in found])) for name in found[0]} if found else {}
        )


def _about(cells: Sequence[Cell]) -> Kinds:
    """What all cells say of the kinds of questions, those that no record knows among them."""
    known = {kind: about for cell in cells for kind, about in cell.kinds.items()}
    return with_unknown(known, [k for c in cells for v in c.variants for k in measure(c, v).means])


def _result(
    cells: list[Cell],
    name: str,
    people: Mapping[tuple[int, str], Mapping[str, float]],
    about: Kinds,
) -> VariantResult:
    rival = name not in (VANILLA, RETAIN_ONLY, OWN)
    forgotten = {kind for kind, its in about.items() if its.falls}

    def advantage(kind: Kind) -> Estimate | None:
        return estimates.advantage(cells, name, kind, falls=kind in forgotten) if rival else None

    return VariantResult(
        name,
        label(name),
        is_control(cells, name),
        {k: e for k in about if (e := estimates.accuracy(cells, name, k))},
        estimates.kept(cells, name, chosen_by(about)),
        {k: e for k in about if (e := advantage(k))},
        estimates.decayed(cells, name, forgotten),
        estimates.decayed(cells, name, about.keys() - forgotten),
        estimates.resisting(people, name),
        _settings([cell.variants[name] for cell in cells if name in cell.variants]),
    )


def _settings(variants: Sequence[Mapping[str, Any]]) -> Settings:
    def over_seeds(field: str) -> float | None:
        found = [variant[field] for variant in variants if variant.get(field) is not None]
        return float(np.mean(found)) if found else None

    runs = [variant["unlearn"] for variant in variants if "unlearn" in variant]
    return Settings(
        [v["learning_rate"] for v in variants if v["learning_rate"] is not None],
        [run["forget_steps"] for run in runs],
        [run["remembered"] for run in runs],
        *(over_seeds(field) for field in ("seconds", "density", "perplexity")),
    )
