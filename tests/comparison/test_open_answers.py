"""Open answers are counted apart from multiple choice, and named beside it."""

from mmunlearner_jax.comparison.examiner import accuracies
from mmunlearner_jax.data.benchmarks.base import ScoredKind
from mmunlearner_jax.evaluation.kinds import with_unknown


def test_open_answers_with_accepted_ones_are_a_kind_of_their_own():
    about = {"split": "test", "modality": "qa", "person": "FR"}
    lines = [
        about | {"task": "classification", "correct": True},
        about | {"task": "classification", "correct": False},
        about | {"task": "generation", "right": False},
        about | {"task": "generation", "rouge1": 0.4},  # no answers are accepted
    ]
    assert accuracies(lines) == {
        "test/qa": {"FR": (0.5, 2)},
        "test/qa-open": {"FR": (0.0, 1)},
    }


def test_open_answers_fall_as_the_multiple_choice_beside_which_they_stand():
    known = {
        ("test", "vqa"): ScoredKind("Forgotten, unseen", falls=True, headline=True),
        ("test", "qa"): ScoredKind("In words", chosen_by=True),
    }
    scored = [*known, ("test", "qa-open"), ("test", "vqa-open"), ("more", "qa-open")]
    kinds = with_unknown(known, scored)
    assert list(kinds) == [
        ("test", "vqa"),
        ("test", "vqa-open"),
        ("test", "qa"),
        ("test", "qa-open"),
        ("more", "qa-open"),
    ]
    assert kinds["test", "vqa-open"] == ScoredKind("Forgotten, unseen, open answers", falls=True)
    assert kinds["test", "qa-open"] == ScoredKind("In words, open answers")
    assert kinds["more", "qa-open"].label == "More, in words, open answers"
