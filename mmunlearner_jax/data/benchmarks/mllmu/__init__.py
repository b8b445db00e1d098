"""MLLMU-Bench: invented people with portraits, and celebrities whom the model must still know.

Any folder in its schema can be read, published or not (docs/own-data.md).
"""

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, ScoredKind
from mmunlearner_jax.data.benchmarks.mllmu import prompts
from mmunlearner_jax.data.benchmarks.mllmu.reader import MLLMUBench
from mmunlearner_jax.data.benchmarks.mllmu.schema import MLLMU_CONFIGS, mllmu_schema
from mmunlearner_jax.data.benchmarks.mllmu.shots import with_shots

MLLMU = BenchmarkRecord(
    name="mllmu",
    title="MLLMU-Bench",
    repository="MLLMMU/MLLMU-Bench",
    revision="e91a01eb060b61be8dbde7edb48b121341bd0890",
    dataset="mllmu_bench",
    folder="Full_Set",
    configs=MLLMU_CONFIGS,
    schema=mllmu_schema,
    reader=MLLMUBench,
    options=("text_source",),
    kinds={
        ("forget", "vqa"): ScoredKind(
            "Forgotten people, training photographs", falls=True, headline=True
        ),
        ("test", "vqa"): ScoredKind(
            "Forgotten people, unseen photographs", falls=True, headline=True
        ),
        ("forget", "qa"): ScoredKind("Forgotten people, in words", chosen_by=True, headline=True),
        ("test", "qa"): ScoredKind("Forgotten people, in other words"),
        ("retain", "vqa"): ScoredKind("Other people, training photographs", chosen_by=True),
        ("test_retain", "vqa"): ScoredKind(
            "Other people, unseen photographs", chosen_by=True, headline=True
        ),
        ("retain", "qa"): ScoredKind("Other people, in words", chosen_by=True),
        ("test_retain", "qa"): ScoredKind("Other people, in other words"),
        ("realworld", "vqa"): ScoredKind("Other things, pictures", chosen_by=True),
        ("realworld", "qa"): ScoredKind("Other things, in words", chosen_by=True),
    },
    turn=prompts.turn,
    whole_prompt=prompts.whole_prompt,
    with_shots=with_shots,
)
MLLMUBench.record = MLLMU
