"""Scores against formulas written out, and the structure of a summary."""

import math

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

from mmunlearner_jax.evaluation.overlap import bleu, rouge
from mmunlearner_jax.evaluation.scores import (
    accuracy,
    mean_score,
    same_words,
    scored,
    summarise,
)
from mmunlearner_jax.evaluation.texts import has_words

SENTENCES = [
    ("Alba Birch works as a baker in Oslo.", "Alba Birch worked as the baker of Oslo, Norway."),
    ("Alba Birch works as a baker in Oslo.", "Alba Birch works as a baker in Oslo."),
    ("Alba Birch works as a baker in Oslo.", "No."),
    ("a baker", ""),
]


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


def test_mean_score_of_many_is_that_of_all_resamples_at_once():
    values = np.random.default_rng(0).random(1500)
    rng = np.random.default_rng(0)
    whole = stats.bootstrap((values,), np.mean, method="percentile", rng=rng).confidence_interval
    assert mean_score(values.tolist())["ci95"] == [whole.low, whole.high]


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
    assert rouge(reference, response)["rougeL"] == pytest.approx(expected)


@pytest.mark.parametrize(("reference", "response"), SENTENCES)
def test_mllmu_and_clear_texts_score_as_the_libraries_say(reference, response):
    kinds = ["rouge1", "rouge2", "rougeL"]
    theirs = RougeScorer(kinds, use_stemmer=True).score(reference, response)
    assert rouge(reference, response) == {
        **{kind: theirs[kind].fmeasure for kind in kinds},
        "rougeL_recall": theirs["rougeL"].recall,
    }
    smoothing = SmoothingFunction().method1
    theirs = sentence_bleu([reference.split()], response.split(), smoothing_function=smoothing)
    assert bleu(reference, response) == theirs


def test_mllmu_bleu_by_hand():
    # Five of six words, then 3/5, 1/4 and, smoothed, 0.1/3; equally long.
    by_hand = (5 / 6 * 3 / 5 * 1 / 4 * 0.1 / 3) ** 0.25
    assert bleu("the cat sat on the mat", "the cat is on the mat") == pytest.approx(by_hand)
    assert bleu("a baker", "") == 0


def test_clear_recall_does_not_punish_words():
    found = rouge("a baker", "She is a baker, and a good one")
    assert found["rougeL_recall"] == 1 > found["rougeL"] == pytest.approx(2 * 1 * 0.25 / 1.25)


def asked(task, answer, response, **more):
    line = dict(split="forget", modality="vqa", task=task, answer=answer, response=response)
    return line | dict(options=[], scores=[]) | more


@pytest.mark.parametrize(
    ("answer", "response", "inside", "exact", "words"),
    [
        ("New York", "new york.", True, True, 2),
        ("New York", "He lives in New York City", True, False, 6),
        ("art", "A party", True, False, 2),
        ("New York", "York New", False, False, 2),
        ("baker's", "Baker s", False, True, 2),
        ("baker", "", False, False, 0),
    ],
)
def test_mllmu_cloze_has_exact_match_and_length_beside_it(answer, response, inside, exact, words):
    found = scored(asked("cloze", answer, response))
    assert (found["correct"], found["exact"], found["words"]) == (inside, exact, words)
    assert same_words(answer, response) == exact


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("The capital is Bern.", True),
        ("BERNE!", True),
        ("It is Zurich.", False),
        ("Bernard", False),
        ("", False),
        ("Sao José", True),
        ("São Tomé and José", False),
    ],
)
def test_mllmu_an_open_answer_is_right_by_its_words(response, right):
    accepted = ["Bern", "Berne", "São José"]
    found = scored(asked("generation", "The capital is Bern.", response, accepted=accepted))
    assert found["right"] is found["correct"] is right
    score = summarise([found, asked("generation", "Bern.", "Bern", correct=True)])
    assert score["forget"]["vqa"]["right"] == accuracy([right])
    without = scored(asked("generation", "The capital is Bern.", response, accepted=[]))
    assert "right" not in without
    assert without["correct"] is (response == "The capital is Bern.")


@pytest.mark.parametrize(
    ("reference", "response", "found"),
    [
        ("Oman", "Romania", False),
        ("Oman", "It is Oman.", True),
        ("Port-au-Prince", "port au prince", True),
        ("New Delhi", "Delhi, the new", False),
        ("हिन्दी", "हिन्दी भाषा", True),
        ("हिन्दी", "हिन्दा", False),  # only the accents of Latin letters are dropped
        ("日本", "それは日本です", True),
        ("🙂", "a 🙂", True),
    ],
)
def test_words_are_found_whole_and_in_order(reference, response, found):
    assert has_words(response, reference) is found


JOBS = dict(options=["baker", "pilot", "smith"], scores=[-3.0, -1.0, -2.0])


def test_mllmu_letters_are_scored_beside_the_likelihood():
    said = [
        scored(asked("classification", "pilot", response, letters="B", **JOBS))
        for response in ("b", "A pilot.", "", "D")
    ]
    assert [line["letter"] for line in said] == ["B", "A", None, None]
    assert [line["letter_correct"] for line in said] == [True, False, False, False]
    assert [line["correct"] for line in said] == [True] * 4
    assert scored(said[0]) == said[0]
    scores = summarise(said)["forget"]["vqa"]
    assert scores["classification"] == accuracy([True] * 4)
    assert scores["classification_letter"] == accuracy([True, False, False, False])


def test_mllmu_letters_decide_where_no_option_is_scored():
    parsed = JOBS | {"scores": [], "letters": "C"}
    found = scored(asked("classification", "smith", "C.", **parsed))
    assert (found["letter"], found["choice"], found["correct"]) == ("C", "smith", True)
    found = scored(asked("classification", "smith", "?", **parsed))
    assert (found["letter"], found["choice"], found["correct"]) == (None, None, False)
    # As published, only the right letter is right, even if another option has the same text.
    twice = parsed | dict(options=["smith", "pilot", "smith"])
    for letter, right in (("A", False), ("B", False), ("C", True), ("", False), ("Z", False)):
        found = scored(asked("classification", "smith", letter, **twice))
        assert found["letter_correct"] is found["correct"] is right


def test_mllmu_summary_has_every_metric_of_its_task():
    said = [
        asked("classification", "pilot", "B", letters="B", **JOBS),
        asked("cloze", "pilot", "a pilot"),
        asked("generation", *SENTENCES[0]),
        asked("generation", *SENTENCES[1]),
    ]
    scores = summarise(map(scored, said))["forget"]["vqa"]
    assert {metric: score["n"] for metric, score in scores.items()} == {
        **{"classification": 1, "classification_letter": 1},
        **{"cloze": 1, "cloze_exact": 1, "words": 1},
        **{"rouge1": 2, "rouge2": 2, "rougeL": 2, "rougeL_recall": 2, "bleu": 2},
    }
    assert scores["words"] == mean_score([2])
    assert scores["bleu"] == mean_score([round(bleu(*pair), 4) for pair in SENTENCES[:2]])


def test_lines_of_before_these_metrics_have_the_summary_they_had():
    old = {"task", "split", "modality", "answer", "options", "response", "scores"}
    line = scored(asked("classification", "pilot", "", **JOBS))
    assert line.keys() - old == {"choice", "correct"}


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
