"""Scores against formulas written out, and the structure of a summary."""

import math

import numpy as np
import pytest

from mmunlearner_jax.evaluation.metrics import accuracy, mean_score, rouge_l, summarise


def wilson(right: int, n: int, z: float = 1.959963984540054) -> list[float]:
    p = right / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return [centre - half, centre + half]


@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 8), (3, 8), (8, 8), (57, 224), (1999, 2000)])
def test_accuracy_has_the_wilson_interval(right, n):
    score = accuracy([True] * right + [False] * (n - right))
    assert (score["value"], score["n"]) == (right / n, n)
    np.testing.assert_allclose(score["ci95"], wilson(right, n), rtol=1e-9, atol=1e-12)
    assert 0 <= score["ci95"][0] <= score["value"] <= score["ci95"][1] <= 1


def test_mean_score_is_seeded():
    values = np.random.default_rng(0).random(40).tolist()
    first = mean_score(values, seed=1)
    assert first == mean_score(values, seed=1)
    assert first["ci95"] != mean_score(values, seed=2)["ci95"]


def test_mean_score_has_about_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).random(400)
    score = mean_score(values.tolist())
    assert score["n"] == 400
    assert score["value"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(score["ci95"], values.mean() + [-half, half], rtol=0.01)


def test_equal_values_have_no_width():
    assert mean_score([0.25] * 3) == {"value": 0.25, "n": 3, "ci95": [0.25, 0.25]}


@pytest.mark.parametrize(
    ("reference", "response", "expected"),
    [
        ("Alba Birch works as a baker.", "Alba Birch works as a baker.", 1.0),
        ("Alba Birch works as a baker.", "ALBA BIRCH works as a bakers", 1.0),  # stemmed
        ("a baker", "", 0.0),
        ("one two three four", "one three", 2 * 1 * 0.5 / 1.5),
        ("one two three four", "four three two one", 0.25),  # in order only
    ],
)
def test_rouge_l(reference, response, expected):
    assert rouge_l(reference, response) == pytest.approx(expected)


def line(split, modality, task, correct, rouge=0.0):
    return dict(split=split, modality=modality, task=task, correct=correct, rougeL=rouge)


def test_summary():
    lines = [
        line("forget", "vqa", "classification", True),
        line("forget", "vqa", "classification", False),
        line("forget", "vqa", "cloze", False, 0.9),
        line("forget", "qa", "generation", True, 0.5),
        line("retain", "qa", "classification", True),
        line("forget", "vqa", "classification", True),
    ]
    scores = summarise(lines)
    assert {k: {m: [*s] for m, s in v.items()} for k, v in scores.items()} == {
        "forget": {"vqa": ["classification", "cloze"], "qa": ["rougeL"]},
        "retain": {"qa": ["classification"]},
    }
    assert scores["forget"]["vqa"]["classification"] == accuracy([True, True, False])
    assert scores["forget"]["vqa"]["cloze"] == accuracy([False])
    assert scores["forget"]["qa"]["rougeL"] == mean_score([0.5])
    assert scores["retain"]["qa"]["classification"] == accuracy([True])
    assert summarise([]) == {}
