"""What a comparison shows, worked out once for page and Markdown, and its verdict in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmunlearner_jax.comparison import estimates
from mmunlearner_jax.comparison.attacked import Attacked, attacked
from mmunlearner_jax.comparison.cells import Cell, label, names, read_cells
from mmunlearner_jax.comparison.effects import FEWEST_PEOPLE, Effect, holm
from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.jobs import REFERENCES
from mmunlearner_jax.comparison.measures import Decay
from mmunlearner_jax.comparison.runs import FORGOTTEN, HALFWAY, relearned_level
from mmunlearner_jax.config.compare import CompareConfig, Contrast
from mmunlearner_jax.data.benchmarks.base import ScoredKind
from mmunlearner_jax.evaluation.kinds import with_unknown

LEVELS = FORGOTTEN, HALFWAY
ALPHA = 0.05
_MEANS = "seconds", "density", "perplexity", "plain_perplexity"


class VariantResult(NamedTuple):
    """One variant at one forget ratio.

    Attributes:
        name: Name of the variant.
        label: Name of the variant on a page.
        control: Whether it is a method with one thing changed.
        reached: Number of seeds in which it forgot enough, and number of its seeds.
        accuracies: Accuracy by level and kind of question; "end" is the last model,
            `relearned_level` this model after relearning.
        above_gold: How much more it answers than gold after relearning, likewise; {} without gold.
        steps: Forget steps to each level.
        kept: Mean kept on the way from the vanilla model to the end, on questions set apart.
        faces: Signs of decay in answers about the forgotten people's photographs.
        others: The same in all other open answers.
        resisting: Number of forgotten people who resist, and of how many.
        rates: Learning rates that were chosen.
        edge: Whether one of them lies at the edge of those that were tried.
        seconds: Duration of a run with its scoring, mean over the seeds.
        density: Density of the mask, mean over the seeds; None without one.
        perplexity: Perplexity of the retained people's taught text, mean over the seeds.
        plain_perplexity: Perplexity of plain English text; None where it was not measured.
        attacked: What came back under attack, by attack; {} where it was not tried.
    """

    name: str
    label: str
    control: bool
    reached: tuple[int, int]
    accuracies: dict[str, dict[str, Estimate]]
    above_gold: dict[str, dict[str, Estimate]]
    steps: dict[str, Estimate | None]
    kept: Estimate | None
    faces: Decay | None
    others: Decay | None
    resisting: tuple[int, int]
    rates: list[float]
    edge: bool
    seconds: Estimate | None
    density: Estimate | None
    perplexity: Estimate | None
    plain_perplexity: Estimate | None
    attacked: dict[str, Attacked]

    @property
    def reference(self) -> bool:
        """Whether the model unlearned nothing."""
        return self.name in REFERENCES

    def shown(self, kind: str) -> tuple[Estimate | None, bool]:
        """Returns what a table shows of a kind, and whether the variants are compared there.

        A variant that did not reach the level in most seeds is shown where its runs ended.
        """
        if 2 * self.reached[0] > self.reached[1] or self.reference:
            return self.accuracies[FORGOTTEN].get(kind), True
        return self.accuracies["end"].get(kind), False


Role = Literal["primary", "secondary"]


class Finding(NamedTuple):
    """A contrast that was named beforehand, and what it came to.

    Attributes:
        role: Whether it is the primary one.
        contrast: What is compared, on which questions.
        effect: How much better the first is; None where it was not measured.
        p: Its p-value; those of secondary contrasts are adjusted by Holm's rule.
        title: The contrast in words.
        verdict: What follows from it, in words.
    """

    role: Role
    contrast: Contrast
    effect: Effect | None
    p: float | None
    title: str
    verdict: str


class Comparison:
    """All cells of a workdir, and what follows from them.

    Attributes:
        cells: The cells.
        ratios: Forget ratios, in percent.
        seeds: Seeds of the cells.
        about: What each kind of scored question is about, by "SPLIT/MODALITY".
        kinds: Kinds of questions with right answers that were asked, in the order of tables.
        chance: What guessing gives, by ratio and kind: `uniform` and `prior`.
        rows: Variants by ratio.
        findings: Contrasts that were named beforehand, by ratio.
    """

    def __init__(self, workdir: Path):
        """Reads everything once.

        Raises:
            InputError: There is nothing to read, or a file of a variant is missing.
        """
        self.cells = read_cells(workdir)
        self.ratios = sorted({cell.ratio for cell in self.cells})
        self.seeds = sorted({cell.seed for cell in self.cells})
        self.about = _about(self.cells)
        self.rows = {ratio: self._rows(self.at(ratio)) for ratio in self.ratios}
        scored = {k for rows in self.rows.values() for row in rows for k in row.accuracies["end"]}
        self.kinds = [kind for kind in self.about if kind in scored]
        self.chance = {ratio: _chance(self.at(ratio)) for ratio in self.ratios}
        self.findings = {ratio: self._findings(self.at(ratio)) for ratio in self.ratios}

    @property
    def options(self) -> CompareConfig:
        """Section `config.compare` of the first cell."""
        return self.cells[0].typed_config.compare

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of forgetting at which runs were scored."""
        return LEVELS if self.options.halfway else (FORGOTTEN,)

    @property
    def tuned_on(self) -> list[str]:
        """The workdirs that chose the learning rates, e.g. "seed-100/tune-10", each once."""
        folders = [folder for cell in self.cells for folder in cell.typed_config.compare.tuned]
        return sorted({"/".join(Path(folder).parts[-2:]) for folder in folders})

    @property
    def main_kinds(self) -> list[str]:
        """The kinds of one screen: those that pages begin with, and those of named contrasts."""
        named = {contrast.kind for contrast in self.options.contrasts}
        return [kind for kind in self.kinds if self.about[kind].headline or kind in named]

    @property
    def returning(self) -> list[tuple[int, str, str]]:
        """Numbers of relearning steps, their levels, and the kinds that are asked after them."""
        return [
            (steps, relearned_level(steps), kind)
            for steps in self.options.relearn_steps
            for kind in self.kinds
            if self.about[kind].falls
        ]

    @property
    def relearned_levels(self) -> tuple[str, ...]:
        """The levels of last models that have relearned."""
        return tuple(map(relearned_level, self.options.relearn_steps))

    @property
    def has_plain_text(self) -> bool:
        """Whether the perplexity of plain text was measured."""
        return any(row.plain_perplexity for rows in self.rows.values() for row in rows)

    def audited(self, ratio: int) -> list[VariantResult]:
        """Returns the models of a ratio that were attacked."""
        return [row for row in self.rows[ratio] if row.attacked]

    def attacks(self, ratio: int) -> list[str]:
        """Returns the attacks on models of a ratio."""
        most_first = sorted(self.audited(ratio), key=lambda row: -len(row.attacked))
        return list(dict.fromkeys(x for row in most_first for x in row.attacked))

    @property
    def middle(self) -> int:
        """The ratio that figures show."""
        return self.ratios[len(self.ratios) // 2]

    def at(self, ratio: int) -> list[Cell]:
        """Returns the cells of one ratio."""
        return [cell for cell in self.cells if cell.ratio == ratio]

    def label(self, name: str) -> str:
        """Returns what a page calls a variant."""
        return label(name, self.cells)

    def _rows(self, cells: list[Cell]) -> list[VariantResult]:
        people = estimates.by_person(cells)
        levels = self.relearned_levels
        return [_result(cells, name, people, self.about, levels) for name in names(cells)]

    def _findings(self, cells: list[Cell]) -> list[Finding]:
        named = self.options.contrasts
        primary = named[0] if self.options.primary else None
        effects = [self._effect(cells, contrast) for contrast in named]
        raw = [effect.p if effect else None for effect in effects]
        first = 1 if primary else 0
        adjusted = [*raw[:first], *holm(raw[first:])]
        return [
            Finding(
                "primary" if contrast is primary else "secondary",
                contrast,
                effect,
                p,
                self._title(contrast),
                self._verdict(contrast, effect, p),
            )
            for contrast, effect, p in zip(named, effects, adjusted, strict=True)
        ]

    def _effect(self, cells: list[Cell], contrast: Contrast) -> Effect | None:
        falls = contrast.kind in self.about and self.about[contrast.kind].falls
        return estimates.contrast(cells, *contrast, level=FORGOTTEN, falls=falls)

    def _title(self, contrast: Contrast) -> str:
        kind = self.about.get(contrast.kind)
        on = kind.label.lower() if kind else contrast.kind
        return f"{self.label(contrast.first)} against {_within(self.label(contrast.second))}: {on}"

    def _verdict(self, contrast: Contrast, effect: Effect | None, p: float | None) -> str:
        if effect is None:
            return "not measured: in no seed did both forget enough"
        if len(effect.seeds) < 2:
            return "undecided: in one seed alone did both forget enough"
        if p is not None and p < ALPHA:
            kind = self.about.get(contrast.kind)
            verb = "has less left" if kind and kind.falls else "keeps more"
            better = contrast.first if effect.value > 0 else contrast.second
            return f"{self.label(better)} {verb}"
        if effect.same(self.options.margin):
            return f"the same within {100 * self.options.margin:g} points"
        return "undecided"

    def notes(self, ratio: int) -> list[str]:
        """Returns what limits the intervals of a ratio, one sentence each."""
        effects = [finding.effect for finding in self.findings[ratio] if finding.effect]
        notes = []
        if len(self.ratios) > 1:
            notes.append("The p-values are adjusted within a forget ratio, not across ratios.")
        if len(self.seeds) == 1:
            notes.append("There is one seed: nothing can be called a difference.")
        elif any(not effect.people for effect in effects):
            notes.append(
                f"Contrasts on fewer than {FEWEST_PEOPLE} people, or in which nobody occurs in two"
                " seeds, have an interval over seeds alone."
            )
        return notes

    def blocks(self, ratio: int) -> dict[str, float]:
        """Returns the density of the mask by parameter name, mean over the seeds."""
        blocks = [cell.blocks for cell in self.at(ratio) if cell.blocks]
        return (
            {name: float(np.mean([b[name] for b in blocks])) for name in blocks[0]}
            if blocks
            else {}
        )


def _within(label: str) -> str:
    """Returns a label as it stands within a sentence: "Random mask", but not "NPO"."""
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _about(cells: Sequence[Cell]) -> dict[str, ScoredKind]:
    """Returns what all cells say of the kinds of questions, also of those that no record knows."""
    known = {kind: about for cell in cells for kind, about in cell.kinds.items()}
    scored = {
        tuple(kind.split("/"))
        for cell in cells
        for name in cell.variants
        for kind in cell.accuracies(name, "end") or {}
    }
    kinds = with_unknown(known, [(split, modality) for split, modality in sorted(scored)])
    return {"/".join(kind): about for kind, about in kinds.items()}


def _chance(cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Returns what guessing gives by kind, mean over the cells."""
    entries = [cell.results.get("chance", {}) for cell in cells]
    kinds = {kind for entry in entries for kind in entry}
    return {
        kind: {
            by: float(np.mean([entry[kind][by] for entry in entries if kind in entry]))
            for by in ("uniform", "prior")
        }
        for kind in kinds
    }


def _result(
    cells: list[Cell],
    name: str,
    people: Mapping[tuple[int, str], Mapping[str, float]],
    about: Mapping[str, ScoredKind],
    relearned: Sequence[str],
) -> VariantResult:
    def entries(field: str) -> list[Any]:
        values = [cell.variants[name].get(field) for cell in cells if name in cell.variants]
        return [value for value in values if value is not None]

    def by_level(measure: Callable[..., Estimate | None], levels: Iterable[str]) -> Any:
        return {
            level: {k: e for k in about if (e := measure(cells, name, k, level))}
            for level in levels
        }

    split = {kind: tuple(kind.split("/")) for kind in about}
    forgotten = {(s, m) for kind, (s, m) in split.items() if about[kind].falls}
    rest = {(s, m) for s, m in split.values()} - forgotten
    return VariantResult(
        name,
        label(name, cells),
        any(entries("control")),
        (sum(entries("reached")), sum(name in cell.variants for cell in cells)),
        by_level(estimates.accuracy, (*LEVELS, "end", *relearned)),
        by_level(estimates.above_gold, relearned),
        {level: estimates.steps_to(cells, name, level) for level in LEVELS},
        estimates.over_seeds(cells, name, "kept"),
        estimates.decayed(cells, name, forgotten),
        estimates.decayed(cells, name, rest),
        estimates.resisting(people, name),
        sorted(set(entries("learning_rate"))),
        any(entries("edge")),
        *(estimates.over_seeds(cells, name, field) for field in _MEANS),
        attacked=attacked(cells, name),
    )
