"""The jobs of a comparison: which runs of `mmunlearner_jax.main` it is made of."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmunlearner_jax.audit.audit_file import is_audited
from mmunlearner_jax.comparison.tuning import is_tuned, tuned_at
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_compared
from mmunlearner_jax.config.run import READS, SHARED
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.results import read_results

VANILLA, GOLD, NEVER_TAUGHT = "vanilla", "gold", "never_taught"
REFERENCES = VANILLA, GOLD, NEVER_TAUGHT  # models that unlearned nothing
_REFERENCES = "compare.gold", "compare.never_taught"
MODELS, GOLDS, TUNE, COMPARE = 1, 2, 3, 4  # stages of jobs


def rows(config: Config) -> tuple[str, ...]:
    """Returns the models that a cell scores, in the order in which they are made."""
    options = config.compare
    there = {VANILLA: True, GOLD: options.gold, NEVER_TAUGHT: options.never_taught}
    return (*filter(there.get, REFERENCES), *options.methods, *options.controls)


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of `mmunlearner_jax.main`.

    Attributes:
        stage: Number of its stage. A job needs all jobs of earlier stages that `needs` lists.
        workdir: Workdir of the run.
        overrides: Values of the config, by dotted key.
        rows: Names of the models that it makes; none: it fine-tunes one model.
        audits: Names of the models that it attacks.
        attacks: `config.audit` as a dict, with which it attacks them.
        needs: Workdirs of the jobs that must be done before.
        rates: The grid of learning rates that it tries.
        tunes: Names of the variants that it tries them with.
    """

    stage: int
    workdir: Path
    overrides: dict[str, Any]
    rows: tuple[str, ...] = ()
    audits: tuple[str, ...] = ()
    attacks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[Path, ...] = ()
    rates: tuple[float, ...] = ()
    tunes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Seed and model or forget ratio, e.g. "seed-3/forget-10"."""
        return "/".join(self.workdir.parts[-2:])

    @property
    def size(self) -> int:
        """Number of models that it makes or attacks."""
        return len(self.rows) + len(self.audits) or 1

    def done(self) -> int:
        """Returns how many of its models are made or attacked."""
        if not self.rows:
            return int((self.workdir / "vanilla").exists())
        results = read_results(self.workdir)
        tuning = results.get("tuning", {})
        tuned = [is_tuned(tuning.get(name), self.rates) for name in self.tunes]
        if self.stage == TUNE:
            return sum(tuned)
        attacked = sum(is_audited(self.workdir, name, self.attacks) for name in self.audits)
        return all(tuned) and len({*self.rows} & results.get("variants", {}).keys()) + attacked

    def arguments(self, file: str, changes: Mapping[str, Any]) -> list[str]:
        """Returns the arguments of Python that run the job.

        Args:
            file: Config file.
            changes: Values for all jobs, by dotted key. The job's own overrule them, and those that
                none of its stages reads are left out.
        """
        read = {*SHARED, *(name for stage in self.overrides["stages"] for name in READS[stage])}
        values = {key: value for key, value in changes.items() if key.partition(".")[0] in read}
        # A tuple that is given twice would be both, one after the other.
        values |= self.overrides
        overrides = [f"--config.{key}={value}" for key, value in values.items()]
        program = ["-m", "mmunlearner_jax.main", f"--config={file}"]
        return [*program, f"--workdir={self.workdir}", *overrides]


def jobs(config: Config, workdir: Path) -> list[Job]:
    """Returns the jobs of a comparison, those first that others need.

    Where the config fine-tunes, every seed has a vanilla model, and for each ratio a gold model
    and, if text is taught and the seed is scored with all controls, one that is never taught about
    the people to forget. Development seeds are left out if `config.compare.tuned` names workdirs.

    Raises:
        InputError: There is nothing to compare, seeds or ratios are not all different, or
            `config.compare.tuned` does not tune all methods at all ratios.
    """
    options = config.compare
    check_compared(config)
    for key in ("seeds", "development_seeds", "ratios"):
        values = getattr(options, key)
        if len({*values}) < len(values) or not (values or key == "development_seeds"):
            raise InputError(f"config.compare.{key} is {values}: give each once")
    models: list[Job] = []
    cells: list[Job] = []
    development = () if options.tuned else options.development_seeds
    for seed in (*development, *options.seeds):
        made = list(_models(config, workdir / f"seed-{seed}", seed))
        models += made
        cells += [_cell(config, workdir, seed, ratio, made) for ratio in options.ratios]
    return models + sorted(cells, key=lambda job: job.stage)


def _trained(config: Config) -> bool:
    return "finetune" in config.stages


def _models(config: Config, home: Path, seed: int) -> Iterator[Job]:
    """Yields the jobs that train the models of a seed."""
    if not _trained(config):
        return
    stages = tuple(name for name in config.stages if name in ("prepare", "align", "finetune"))
    learn: dict[str, Any] = {"seed": seed, "stages": stages}
    vanilla = Job(MODELS, home / VANILLA, learn)
    yield vanilla
    # Where no text is taught, gold is never taught any.
    controlled = config.compare.has_all_controls(seed) and config.finetune.text_batch
    for ratio in config.compare.ratios:
        for kind in (GOLD, NEVER_TAUGHT) if controlled else (GOLD,):
            changes = {"data.forget_ratio": ratio, "finetune.retain_only": kind}
            stage, needs = MODELS, ()
            if kind == GOLD and config.finetune.text_first:
                changes["finetune.taught_text"] = vanilla.workdir  # it is the same text
                stage, needs = GOLDS, (vanilla.workdir,)
            yield Job(stage, home / f"{kind}-{ratio}", learn | changes, needs=needs)


def _cell(config: Config, workdir: Path, seed: int, ratio: int, models: list[Job]) -> Job:
    """Returns the job that tunes or scores all variants of a seed at a ratio."""
    options, home = config.compare, workdir / f"seed-{seed}"
    overrides: dict[str, Any] = {"seed": seed, "data.forget_ratio": ratio}
    if _trained(config):
        overrides["model.checkpoint"] = home / VANILLA / "vanilla"
        if not config.data.benchmark:
            overrides["data.benchmark"] = home / VANILLA / "benchmark"
        there = {job.workdir.name for job in models}
        for kind in (GOLD, NEVER_TAUGHT):
            if f"{kind}-{ratio}" in there:
                overrides[f"compare.{kind}"] = home / f"{kind}-{ratio}/vanilla"
    needs = tuple(job.workdir for job in models)
    grid: dict[str, Any] = {"rates": options.learning_rates, "tunes": options.methods}
    if seed not in options.seeds:
        stages = "importance", "mask", "tune"
        where = home / f"tune-{ratio}"
        overrides["stages"] = stages
        return Job(TUNE, where, overrides, options.methods, needs=needs, **grid)
    own: dict[str, Any] = {}  # what it tries itself
    stages = ("importance", "mask", "compare")
    overrides["compare.controls"] = options.controls_of(seed)
    if options.tuned:
        tuned = tuned_at(options.tuned, ratio, options.methods)
        overrides["compare.tuned"] = tuple(map(str, tuned))
    elif options.development_seeds:
        tuned = tuple(str(workdir / f"seed-{s}/tune-{ratio}") for s in options.development_seeds)
        overrides["compare.tuned"] = tuned
        needs += tuple(map(Path, tuned))
    else:
        own, stages = grid, ("importance", "mask", "tune", "compare")
    references = {key: str(overrides[key]) for key in _REFERENCES if key in overrides}
    names = rows(
        config.with_values(references | {"compare.controls": overrides["compare.controls"]})
    )
    where = home / f"forget-{ratio}"
    audits = tuple(name for name in options.audit if name in names)
    overrides["compare.audit"] = audits
    overrides["stages"] = (*stages, "audits") if audits else stages
    own |= {"audits": audits, "attacks": config.audit.to_dict()}
    return Job(COMPARE, where, overrides, names, needs=needs, **own)
