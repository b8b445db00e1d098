"""The whole config of a run, and which of its sections each stage reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from mmunlearner_jax.config.align import AlignConfig
from mmunlearner_jax.config.audit import AuditConfig
from mmunlearner_jax.config.compare import CompareConfig
from mmunlearner_jax.config.data import DataConfig, PrepareConfig
from mmunlearner_jax.config.evaluate import EvaluateConfig
from mmunlearner_jax.config.finetune import FinetuneConfig
from mmunlearner_jax.config.importance import ImportanceConfig, MaskConfig
from mmunlearner_jax.config.model import ModelConfig
from mmunlearner_jax.config.plan import PlanConfig
from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.controls import CONTROLS

# The sections that a stage reads, besides those that every stage reads (`SHARED`).
READS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("prepare",),
    "align": ("align", "finetune"),
    "finetune": ("finetune",),
    "importance": ("importance",),
    "mask": ("importance", "mask"),
    "unlearn": ("unlearn",),
    "evaluate": ("evaluate",),
    "controls": ("controls", "importance", "mask", "unlearn", "evaluate"),
    "tune": ("compare", "importance", "mask", "unlearn", "evaluate"),
    "compare": ("compare", "importance", "mask", "unlearn", "evaluate"),
    "audit": ("audit", "evaluate"),
    "audits": ("compare", "audit", "evaluate"),
    "export": (),
    "report": ("evaluate", "report"),
    "rescore": ("evaluate",),
}
SHARED = (
    *("seed", "stages", "mesh", "round_batches", "checkpoint_every", "profile"),
    *("model", "data"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig(Section):
    """Traces for TensorBoard."""

    key: ClassVar[str] = "profile"

    steps: int = option(0, "Steps of every stage that are traced.", least=0, special="0: none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Section):
    """Everything that a run reads."""

    seed: int = option(0, "Seed of everything that is drawn.", least=0)
    stages: tuple[str, ...] = option(
        ("evaluate", "importance", "mask", "unlearn", "evaluate", "export", "report"),
        "Stages, in order.",
        choices=tuple(READS),
    )
    mesh: tuple[int, ...] = option(
        (-1, 1, 1), "Devices along the axes data, fsdp and tensor.", special="-1: all that are left"
    )
    round_batches: bool = option(
        False,
        "Whether batches that the devices do not divide are rounded up, and the mesh's axis tensor"
        " is lowered (a line says so); otherwise they are refused.",
    )
    checkpoint_every: int = option(
        50, "Steps from one checkpoint to the next.", unit="steps", least=1
    )
    controls: tuple[str, ...] = option(
        (), "Runs of the stage `controls`, each with one thing changed.", choices=tuple(CONTROLS)
    )
    profile: ProfileConfig = option(ProfileConfig, "Traces for TensorBoard.")
    model: ModelConfig = option(ModelConfig, "The model.")
    prepare: PrepareConfig = option(PrepareConfig, "The example.")
    data: DataConfig = option(DataConfig, "The benchmark.")
    align: AlignConfig = option(AlignConfig, "Alignment of vision with a pretrained decoder.")
    finetune: FinetuneConfig = option(FinetuneConfig, "Training of the vanilla model.")
    importance: ImportanceConfig = option(ImportanceConfig, "Importances.")
    mask: MaskConfig = option(MaskConfig, "The mask.")
    unlearn: UnlearnConfig = option(UnlearnConfig, "Unlearning.")
    compare: CompareConfig = option(CompareConfig, "The comparison.")
    evaluate: EvaluateConfig = option(EvaluateConfig, "Scored questions.")
    audit: AuditConfig = option(AuditConfig, "Attacks.")
    report: ReportConfig = option(ReportConfig, "Bars of the report.")
    plan: PlanConfig = option(PlanConfig, "Sizes of the data that the planner counts on.")

    def with_values(self, changes: Mapping[str, Any]) -> Self:
        """Returns a copy with other values.

        Args:
            changes: Values by dotted key, e.g. `{"unlearn.epochs": 0}`.

        Raises:
            InputError: An unknown option, or a value that its option does not take.
        """
        tree = self.to_dict()
        for key, value in changes.items():
            *path, name = key.split(".")
            section = tree
            for part in path:
                section = section[part]
            section[name] = value
        return type(self).of(tree)
