"""The cells of a comparison: one folder per seed and forget ratio, each a run's workdir."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunlearner_jax.audit.audit_file import audit_of, read_audit
from mmunlearner_jax.comparison.examiner import Accuracies
from mmunlearner_jax.comparison.jobs import GOLD, NEVER_TAUGHT, REFERENCES, VANILLA, rows
from mmunlearner_jax.comparison.runs import RELEARNED
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.compare import CompareConfig
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.evaluation.kinds import Kinds, read_kinds
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.files import read_json
from mmunlearner_jax.results import read_results
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS

_FIELDS = {"method": str | None, "learning_rate": int | float | None}
_OPTIONAL = {"path": list, "matched": dict, "end": dict, RELEARNED: dict}
_MEND = "restore it, or remove its folder and compare again"

# What a page calls the variants; another is called by its name, with blanks.
LABELS = {
    VANILLA: "Nothing forgotten",
    GOLD: "Gold: never shown the faces",
    NEVER_TAUGHT: "Never taught faces or text",
    **{name: control.label for name, control in CONTROLS.items()},
    **{name: method.label for name, method in METHODS.items()},
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One seed at one forget ratio.

    Attributes:
        seed: Seed of everything drawn.
        ratio: Percent of the people who are forgotten.
        folder: Workdir of the run.
        config: Config as the run wrote it.
        variants: Entries of `results.json` by variant.
        results: All of `results.json`.
        kinds: Kinds of the scored questions, in the order of tables.
    """

    seed: int
    ratio: int
    folder: Path
    config: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    results: Mapping[str, Any]
    kinds: Kinds

    @property
    def typed_config(self) -> Config:
        """The config as the stages take it.

        Raises:
            InputError: Another version wrote it.
        """
        try:
            return Config.of(self.config)
        except InputError as error:
            raise InputError(
                f"{self.folder / 'config.json'} is of another version ({error}): compare in another"
                " workdir"
            ) from error

    @property
    def blocks(self) -> Mapping[str, float]:
        """Density of the mask by Hugging Face parameter name; {} without a mask."""
        return self.results.get("mask", {}).get("by_block", {})

    @functools.cached_property
    def audits(self) -> Mapping[str, Any]:
        """What the stage `audits` wrote, by model; {} where it was not run.

        Raises:
            InputError: A file of it is damaged.
        """
        there = {name: read_audit(audit_of(self.folder, name)) for name in names([self])}
        return {name: audit for name, audit in there.items() if audit}

    def accuracies(self, variant: str, level: str) -> Accuracies | None:
        """Returns a variant's scored accuracies, by kind and person.

        Args:
            variant: Name of the variant.
            level: Level of forgetting, "end" for the run's last model, or a `relearned_level` of
                it. Models that unlearned nothing are the same at all levels.

        Returns:
            None where it is missing, diverged, or did not reach the level.
        """
        entry = self.variants.get(variant, {})
        if level.startswith(RELEARNED):
            return entry.get(RELEARNED, {}).get(level.removeprefix(f"{RELEARNED}/"))
        if level == "end" or variant in REFERENCES:
            return entry.get("end")
        return entry.get("matched", {}).get(level, {}).get("accuracies")

    def splits(self, variant: str) -> list[str]:
        """Returns the splits of a variant's open answers."""
        start = f"{variant}-"
        paths = self._predictions.glob(f"{start}*.jsonl")
        return sorted(path.stem.removeprefix(start) for path in paths)

    def lines(self, variant: str, split: str) -> list[dict[str, Any]]:
        """Returns the open answers of a variant, read anew; all variants have the same order.

        Raises:
            InputError: They are missing or cannot be read.
        """
        mend = (
            f"remove {variant!r} from {self.folder / 'results.json'}, and all of {variant}-*.jsonl"
            " beside it, and compare again"
        )
        return read_predictions(self._predictions / f"{variant}-{split}.jsonl", mend=mend)

    @property
    def _predictions(self) -> Path:
        return self.folder / "compare/predictions"


def read_cells(workdir: Path) -> list[Cell]:
    """Returns the cells of a comparison that have a variant at least, by ratio and seed.

    Raises:
        InputError: There are none, or a file of one is damaged.
    """
    cells = _begun(workdir)
    if not cells:
        raise InputError(
            f"{workdir}: no seed-S/forget-R/results.json has variants; give the workdir of a"
            " comparison, or run python -m mmunlearner_jax.compare first"
        )
    return sorted(cells, key=lambda cell: (cell.ratio, cell.seed))


def _begun(workdir: Path) -> list[Cell]:
    """Returns the cells that have a variant."""
    cells = []
    for path in workdir.glob("seed-*/forget-*/results.json"):
        results = read_results(path.parent)
        if not results.get("variants"):
            continue
        file = path.parent / "config.json"
        config = read_json(file, mend=_MEND)
        with refusing(file, _MEND):
            seed, ratio = int(config["seed"]), int(config["data"]["forget_ratio"])
        for name, variant in results["variants"].items():
            with refusing(f"{path}, variants.{name}", _MEND):
                there = {key: kind for key, kind in _OPTIONAL.items() if key in variant}
                fields = {**_FIELDS, **there}
                if wrong := [k for k, kind in fields.items() if not isinstance(variant[k], kind)]:
                    raise TypeError(f"{wrong[0]} is {type(variant[wrong[0]]).__name__}")
        with refusing(f"{path}, kinds", _MEND):
            kinds = read_kinds(results)
        cells.append(Cell(seed, ratio, path.parent, config, results["variants"], results, kinds))
    return cells


def check_named_before(options: CompareConfig, workdir: Path) -> None:
    """Refuses other contrasts or another margin than finished cells were run with.

    Raises:
        InputError: An option differs, or a file of a cell is damaged.
    """
    for cell in _begun(workdir):
        earlier = cell.typed_config.compare
        for name in ("primary", "secondary", "margin"):
            if getattr(earlier, name) != getattr(options, name):
                options.refuse(
                    name,
                    f"{getattr(earlier, name)!r}, with which {cell.folder} was run: contrasts are"
                    " named before the runs; or compare in another workdir",
                )


def names(cells: Sequence[Cell]) -> list[str]:
    """Returns all variants of some cells: references, then methods, then controls."""
    known = [*REFERENCES, *METHODS]
    present = dict.fromkeys(name for cell in cells for name in cell.variants)
    return [n for n in known if n in present] + [n for n in present if n not in known]


def label(name: str, cells: Sequence[Cell] = ()) -> str:
    """Returns what a page calls a variant.

    Args:
        name: Name of the variant.
        cells: Cells whose config says which importances MMUnlearner's mask compares.
    """
    text = LABELS.get(name, shown(name).replace("_", " ").capitalize())
    if name == "mmunlearner" and any(c.config["importance"]["normalise"] == "group" for c in cells):
        return f"{text}, relative importances"
    return text


def missing(cells: Sequence[Cell]) -> list[str]:
    """Returns what a comparison lacks, unfinished or diverged, one clause each."""
    there = {(cell.seed, cell.ratio): cell for cell in cells}
    everything = names(cells)
    planned = {name for cell in cells for name in rows(cell.typed_config)}
    lacks = []
    for ratio in sorted({cell.ratio for cell in cells}):
        for seed in sorted({cell.seed for cell in cells}):
            where = f"seed {seed}, {ratio} % forgotten"
            if (seed, ratio) not in there:
                lacks.append(f"{where}: everything")
                continue
            cell = there[seed, ratio]
            made, left_out = cell.variants, planned - {*rows(cell.typed_config)}
            if absent := [n for n in everything if n not in left_out and n not in made]:
                lacks.append(f"{where}: {', '.join(label(n) for n in absent)}")
            lacks += [
                f"{where}: {label(n)}, which diverged" for n in made if made[n].get("diverged")
            ]
    return lacks
