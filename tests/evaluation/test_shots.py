"""Few-shot: who is shown to whom."""

import pytest

from mmunlearner_jax.data.mllmu import MLLMUBench
from mmunlearner_jax.evaluation.shots import with_shots
from mmunlearner_jax.examples.orl import write_orl_benchmark


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("shots") / "orl"
    write_orl_benchmark(root, seed=0)
    return MLLMUBench(root, seed=3)


@pytest.fixture(scope="module")
def splits(bench):
    return bench.scored("forget_10", "retain_90", photos_per_person=1)


def shown(questions):
    return {shot.person for question in questions for shot in question.shots}


def test_mllmu_strict_shows_one_person_who_is_neither_scored_nor_forgotten(bench, splits):
    found = with_shots(bench, splits, retain="retain_90", protocol="strict")
    (person,) = set.union(*(shown(questions) for questions in found.values()))
    assert person in bench.people("retain_90")
    for split, questions in splits.items():
        assert person not in {question.person for question in found[split]}
        kept = [question for question in questions if question.person != person]
        assert [(q.person, q.question, q.image) for q in found[split]] == [
            (q.person, q.question, q.image) for q in kept
        ]
    assert len(found["forget"]) == len(splits["forget"])
    assert len(found["realworld"]) == len(splits["realworld"])
    for question in found["forget"]:
        kinds = {(shot.task, shot.modality) for shot in question.shots}
        assert kinds == (
            set() if question.task == "generation" else {(question.task, question.modality)}
        )
        count = {"classification": 7 if question.image else 6, "cloze": 2, "generation": 0}
        assert len(question.shots) == count[question.task]


def test_mllmu_released_shows_one_of_the_scored_and_leaves_them_out(bench, splits):
    found = with_shots(bench, splits, retain="retain_90", protocol="released")
    for split in ("forget", "test", "retain"):
        (person,) = shown(found[split])
        assert person in {question.person for question in splits[split]}
        left = {question.person for question in found[split]}
        assert left == {question.person for question in splits[split]} - {person}
    assert shown(found["forget"]) <= set(bench.people("forget_10"))  # the leak of D-30
    assert shown(found["realworld"]) == set()
    assert (
        len({q.person for q in splits["realworld"]} - {q.person for q in found["realworld"]}) == 1
    )


def test_mllmu_shots_are_drawn_by_the_seed(bench, splits):
    def people(seed):
        other = MLLMUBench(bench.root, seed=seed)
        found = with_shots(other, splits, retain="retain_90", protocol="strict")
        return shown(found["forget"])

    assert people(3) == people(3)
    assert len(set.union(*(people(seed) for seed in range(5)))) > 1
