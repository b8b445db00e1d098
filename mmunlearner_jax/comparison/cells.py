"""The cells of a comparison: one folder per seed and forget ratio, each a run's workdir."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunlearner_jax.comparison.jobs import RETAIN_ONLY, VANILLA
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.evaluation.kinds import Kinds, read_kinds
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.files import read_json
from mmunlearner_jax.results import read_results
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS

OWN = "mmunlearner"
_FIELDS = {
    "method": str | None,
    "control": bool,
    "learning_rate": int | float | None,
    "points": list,
}
_MEND = "restore it, or remove its folder and compare again"

# What a page calls the variants; another is called by its name, with blanks.
LABELS = {
    VANILLA: "Nothing forgotten",
    RETAIN_ONLY: "Never taught",
    **{name: control.label for name, control in CONTROLS.items()},
    **{name: method.label for name, method in METHODS.items()},
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One seed at one forget ratio.

    Attributes:
        seed: Of everything drawn.
        ratio: Percent of the people who are forgotten.
        folder: The workdir of the run.
        config: As the run wrote it.
        variants: What `results.json` says of every variant, by its name.
        blocks: Density of the mask by Hugging Face parameter name; {} without a mask.
        kinds: Of the scored questions, in the order of tables.
    """

    seed: int
    ratio: int
    folder: Path
    config: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    blocks: Mapping[str, float]
    kinds: Kinds

    @property
    def typed_config(self) -> Config:
        """The config as the stages take it."""
        return Config.of(self.config)

    def splits(self, variant: str) -> list[str]:
        """The splits that a variant was asked, by name."""
        start = f"{variant}-"
        paths = self._predictions.glob(f"{start}*.jsonl")
        return sorted(path.stem.removeprefix(start) for path in paths)

    def lines(self, variant: str, split: str) -> list[dict[str, Any]]:
        """The scored lines of a variant, read anew each time; all variants have the same order.

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
    """The cells of a comparison that have a variant at least, by ratio and seed.

    Raises:
        InputError: There are none, or a file of one is damaged.
    """
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
                if wrong := [k for k, kind in _FIELDS.items() if not isinstance(variant[k], kind)]:
                    raise TypeError(f"{wrong[0]} is {type(variant[wrong[0]]).__name__}")
        blocks = results.get("mask", {}).get("by_block", {})
        with refusing(f"{path}, kinds", _MEND):
            kinds = read_kinds(results)
        cells.append(Cell(seed, ratio, path.parent, config, results["variants"], blocks, kinds))
    if not cells:
        raise InputError(
            f"{workdir}: no seed-S/forget-R/results.json has variants; give the workdir of a"
            " comparison, or run python -m mmunlearner_jax.compare first"
        )
    return sorted(cells, key=lambda cell: (cell.ratio, cell.seed))


def names(cells: Sequence[Cell]) -> list[str]:
    """All variants of some cells: the models that unlearned nothing, the methods, the controls."""
    known = [VANILLA, RETAIN_ONLY, *METHODS]
    found = dict.fromkeys(name for cell in cells for name in cell.variants)
    return [n for n in known if n in found] + [n for n in found if n not in known]


def is_control(cells: Sequence[Cell], name: str) -> bool:
    """Whether a variant is MMUnlearner with one thing changed."""
    return any(cell.variants[name]["control"] for cell in cells if name in cell.variants)


def label(name: str) -> str:
    """What a page calls a variant."""
    return LABELS.get(name, shown(name).replace("_", " ").capitalize())


def missing(cells: Sequence[Cell]) -> list[str]:
    """What a comparison lacks, unfinished or diverged, a sentence part each; empty: nothing."""
    there = {(cell.seed, cell.ratio): cell for cell in cells}
    everything = names(cells)
    said = []
    for ratio in sorted({cell.ratio for cell in cells}):
        for seed in sorted({cell.seed for cell in cells}):
            where = f"seed {seed}, {ratio} % forgotten"
            if (seed, ratio) not in there:
                said.append(f"{where}: everything")
                continue
            made = there[seed, ratio].variants
            if lacks := [n for n in everything if n not in made]:
                said.append(f"{where}: {', '.join(label(n) for n in lacks)}")
            for n in made:
                if made[n]["learning_rate"] is None and n not in (VANILLA, RETAIN_ONLY):
                    said.append(f"{where}: {label(n)}, which diverged at every learning rate")
    return said
