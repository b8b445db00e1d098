"""The jobs of a comparison: which runs of `mmunlearner_jax.main` it is made of."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_compared
from mmunlearner_jax.config.run import READS, SHARED
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.results import read_results

VANILLA, RETAIN_ONLY = "vanilla", "retain_only"  # nothing forgotten; never taught it


def rows(config: Config, *, retain_only: bool) -> tuple[str, ...]:
    """The models that a cell of the comparison scores, in the order in which they are made.

    Args:
        config: Of the comparison.
        retain_only: Whether there is a model that was never taught the people to forget.
    """
    known = (VANILLA, RETAIN_ONLY) if retain_only else (VANILLA,)
    return (*known, *config.compare.methods, *config.compare.controls)


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of `mmunlearner_jax.main`.

    Attributes:
        stage: It needs all jobs of the stages before, and none of its own.
        workdir: Of the run.
        overrides: Values of the config by dotted keys.
        rows: Of the comparison, that it makes; none: it fine-tunes a model.
    """

    stage: int
    workdir: Path
    overrides: dict[str, Any]
    rows: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Seed and what is made, for people."""
        return "/".join(self.workdir.parts[-2:])

    @property
    def size(self) -> int:
        """How many models it makes."""
        return len(self.rows) or 1

    def done(self) -> int:
        """How many of them are made."""
        if self.rows:
            return len(set(self.rows) & read_results(self.workdir).get("variants", {}).keys())
        return int((self.workdir / "vanilla").exists())

    def arguments(self, file: str, changes: Mapping[str, Any]) -> list[str]:
        """Those of Python.

        Args:
            file: Of the config.
            changes: Values for all jobs, by dotted keys; the job's own overrule them, and those
                that none of its stages reads are left out.
        """
        read = {*SHARED, *(name for stage in self.overrides["stages"] for name in READS[stage])}
        values = {key: value for key, value in changes.items() if key.partition(".")[0] in read}
        # A tuple that is given twice would be both, one after the other.
        values |= self.overrides
        given = [f"--config.{key}={value}" for key, value in values.items()]
        program = ["-m", "mmunlearner_jax.main", f"--config={file}"]
        return [*program, f"--workdir={self.workdir}", *given]


def jobs(config: Config, workdir: Path) -> list[Job]:
    """The jobs of a comparison, those first that others need.

    Where the config fine-tunes, a seed's vanilla model is made once, and for each of its ratios a
    model that is never taught the people to forget.

    Raises:
        InputError: There is nothing to compare, or seeds or ratios are not all different.
    """
    options = config.compare
    check_compared(config)
    for key in ("seeds", "ratios"):
        values = getattr(options, key)
        if len({*values}) < len(values) or not values:
            raise InputError(f"config.compare.{key} is {values}: give each once")
    made = []
    for seed in options.seeds:
        home = workdir / f"seed-{seed}"
        known: dict[str, Any] = {"seed": seed}
        trained = "finetune" in config.stages
        if trained:
            stages = tuple(name for name in config.stages if name in ("prepare", "finetune"))
            learn = known | {"stages": stages}
            made.append(Job(1, home / "vanilla", learn))
            known["model.checkpoint"] = home / "vanilla/vanilla"
            if not config.data.benchmark:
                known["data.benchmark"] = home / "vanilla/benchmark"
        for ratio in options.ratios:
            cell = known | {
                "data.forget_ratio": ratio,
                "stages": ("importance", "mask", "compare"),
            }
            if trained:
                gold = {"data.forget_ratio": ratio, "finetune.retain_only": True}
                made.append(Job(1, home / f"retain-{100 - ratio}", learn | gold))
                cell["compare.retain_only"] = made[-1].workdir / "vanilla"
            names = rows(config, retain_only=trained)
            made.append(Job(2, home / f"forget-{ratio}", cell, names))
    return made
