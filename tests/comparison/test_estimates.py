import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from mmunlearner_jax.comparison import estimates, measures
from mmunlearner_jax.comparison.cells import is_control, label, missing, names, read_cells
from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.comparison.measures import Measured, decay, repeats
from mmunlearner_jax.errors import InputError
from tests.helpers import synthetic

FACES, KEEP = ("forget", "vqa"), ("retain", "vqa")


@pytest.fixture
def invent(monkeypatch):
    """Makes cells of accuracies by variant, seed and person, all of one kind; chance is 1/4."""

    def make(kind, table):
        seeds = range(len(next(iter(table.values()))))
        cells = [SimpleNamespace(seed=seed, variants=dict.fromkeys(table, {})) for seed in seeds]

        def measured(cell, variant):
            people = {str(n): value for n, value in enumerate(table[variant][cell.seed])}
            means = {"classification": (float(np.mean(list(people.values()))), len(people))}
            return Measured({kind: means}, {kind: people}, {kind: 0.25}, {})

        monkeypatch.setattr(estimates, "measure", measured)
        return cells

    return make


def bootstrapped(values):
    """95 % percentile interval of the mean, from resamples of its own."""
    rng = np.random.default_rng(1)
    means = rng.choice(values, (20_000, len(values))).mean(1)
    return np.quantile(means, [0.025, 0.975])


def test_accuracy_has_students_interval_over_seeds_and_a_bootstrap_over_people(invent):
    table = np.random.default_rng(0).random((3, 5))
    found = estimates.accuracy(invent(KEEP, {"ga": table}), "ga", KEEP)
    seeds = table.mean(1)
    assert found.seeds == pytest.approx(dict(enumerate(seeds)))
    half = stats.t.ppf(0.975, 2) * seeds.std(ddof=1) / np.sqrt(3)
    assert found.t["ci95"] == pytest.approx([seeds.mean() - half, seeds.mean() + half])
    assert found.people["n"] == 15
    assert found.people["ci95"] == pytest.approx(bootstrapped(table.ravel()), abs=0.01)


def test_one_seed_has_no_interval_over_seeds_and_nothing_is_called_a_difference(invent):
    cells = invent(KEEP, {"mmunlearner": [[1.0, 1.0]], "ga": [[0.1, 0.0]]})
    found = estimates.advantage(cells, "ga", KEEP, falls=False)
    assert found.t is None and found.value == pytest.approx(0.95)
    assert estimates.verdict(found) == "tie"


def test_equal_seeds_have_an_interval_without_width():
    assert estimates.t_score([0.5, 0.5, 0.5])["ci95"] == [0.5, 0.5]


def test_differences_are_paired_by_seed_and_person(invent):
    rng = np.random.default_rng(0)
    other = rng.random((3, 4))
    own = other + 0.2 + 0.01 * rng.random((3, 4))
    found = estimates.advantage(
        invent(KEEP, {"mmunlearner": own, "ga": other}), "ga", KEEP, falls=False
    )
    reference = stats.ttest_rel(own.mean(1), other.mean(1)).confidence_interval(0.95)
    assert found.t["ci95"] == pytest.approx([reference.low, reference.high])
    drawn = bootstrapped((own - other).ravel())
    wide = np.sqrt(4 / 3)  # four people a seed
    ends = found.value + wide * (drawn - found.value)
    assert found.people["ci95"] == pytest.approx(ends, abs=1e-3)
    assert estimates.verdict(found) == "better"
    swapped = estimates.advantage(
        invent(KEEP, {"mmunlearner": other, "ga": own}), "ga", KEEP, falls=False
    )
    assert estimates.verdict(swapped) == "worse"


def test_less_of_the_faces_is_better_but_nothing_is_gained_below_chance(invent):
    own, other = [[0.0, 0.25]] * 3, [[0.25, 0.25]] * 3
    found = estimates.advantage(
        invent(FACES, {"mmunlearner": own, "ga": other}), "ga", FACES, falls=True
    )
    assert found.value == 0 and estimates.verdict(found) == "tie"
    other = [[0.75, 0.85], [0.75, 0.75], [0.85, 0.75]]
    found = estimates.advantage(
        invent(FACES, {"mmunlearner": own, "ga": other}), "ga", FACES, falls=True
    )
    assert list(found.seeds.values()) == pytest.approx([0.55, 0.5, 0.55])
    assert estimates.verdict(found) == "better"


@pytest.mark.parametrize(
    ("t", "people", "word"),
    [
        ((0.1, 0.3), (0.1, 0.2), "better"),
        ((-0.3, -0.1), (-0.2, -0.1), "worse"),
        ((-0.1, 0.3), (0.1, 0.2), "tie"),
        ((0.1, 0.3), (-0.1, 0.2), "tie"),
        ((0.1, 0.3), (-0.2, -0.1), "tie"),
        ((0.0, 0.3), (0.1, 0.2), "tie"),
        ((0.1, 0.1), (0.1, 0.2), "tie"),
    ],
)
def test_verdict_needs_both_intervals(t, people, word):
    scores = ({"value": 0.0, "n": 3, "ci95": list(ci)} for ci in (t, people))
    assert estimates.verdict(Estimate(0.0, {}, *scores, 0)) == word


def test_pareto_front_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    points = {str(n): tuple(p) for n, p in enumerate(rng.integers(0, 6, (40, 2)).tolist())}

    def beaten(one, other):
        return other[0] <= one[0] and other[1] >= one[1] and other != one

    dominated = {a for a, b in itertools.permutations(points, 2) if beaten(points[a], points[b])}
    front = estimates.pareto(points)
    assert set(front) == points.keys() - dominated
    assert [points[n][0] for n in front] == sorted(points[n][0] for n in front)


def test_signs_of_decay():
    known = set(measures.words("Her name is Ada. She lives in Rome."))
    answers = ("", "  ", "Rome rome ROME", "zzz qqq", "I don't know.", "She lives in Rome.")
    found = decay(answers, known)
    assert found.empty == pytest.approx(2 / 6)
    assert found.repeated == pytest.approx(1 / 6)
    assert found.gibberish == pytest.approx(1 / 6)  # "zzz qqq": nothing empty, no refusal
    assert found.refused == pytest.approx(1 / 6)
    assert found.n == 6


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("a b a b a", True),  # a b a, twice
        ("a b c x a b c", True),
        ("a a", False),
        ("a a a", True),
        ("a b c d a b", False),
        ("", False),
    ],
)
def test_repetition(text, repeated):
    assert repeats(text.split()) == repeated


def test_cells_are_read_and_what_is_missing_is_told(workdir):
    cells = read_cells(workdir)
    assert [(cell.ratio, cell.seed) for cell in cells] == [
        (r, s) for r in (5, 10) for s in (0, 1, 2)
    ]
    assert names(cells)[:5] == ["vanilla", "retain_only", "mmunlearner", "ga", "idk_nll"]
    assert missing(cells) == ["seed 2, 10 % forgotten: Without the forgotten people's text"]
    assert not is_control(cells, "npo") and is_control(cells, "no_mask")
    assert missing(cells[1:])[0] == "seed 0, 5 % forgotten: everything"
    assert label("threshold_0.5") == "Threshold 0.5"


def test_nothing_to_read_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="give the workdir of a comparison"):
        read_cells(tmp_path)


def test_lost_lines_are_an_input_error(workdir):
    with pytest.raises(InputError, match="gone-test.jsonl: is missing; remove 'gone'"):
        read_cells(workdir)[0].lines("gone", "test")


def lines_of(cell, variant, split, modality, task):
    path = cell.folder / f"compare/predictions/{variant}-{split}.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [x for x in lines if (x["modality"], x["task"]) == (modality, task)]


def test_measures_are_those_of_the_lines(workdir):
    cell = read_cells(workdir)[-1]
    lines = lines_of(cell, "mmunlearner", "forget", "vqa", "classification")
    found = measures.measure(cell, "mmunlearner")
    right = [line["correct"] for line in lines]
    assert found.means[FACES]["classification"] == (pytest.approx(np.mean(right)), len(right))
    assert found.chance[FACES] == pytest.approx(0.25)
    someone = lines[0]["person"]
    theirs = [line["correct"] for line in lines if line["person"] == someone]
    assert found.people[FACES][someone] == pytest.approx(np.mean(theirs))
    said = lines_of(cell, "mmunlearner", "forget", "vqa", "generation")
    evil = np.mean([line["response"] == synthetic.EVIL for line in said])
    assert 0 < found.decay[FACES].gibberish == pytest.approx(evil)


def test_what_the_invented_answers_show(found):
    assert found.middle == 10 and found.chance == pytest.approx(0.25)
    assert found.row(10, "ga").apart("better") and not found.row(10, "ga").apart("worse")
    assert FACES in found.row(10, "npo").apart("better")
    assert found.row(10, "idk_nll").resisting == (12, 12)  # 4 people of 3 seeds
    assert found.row(10, "vanilla").advantages == found.row(10, "mmunlearner").advantages == {}
    assert list(found.row(10, "no_forget_text").accuracies[FACES].seeds) == [0, 1]
    kept = found.row(10, "ga").kept
    each = [found.row(10, "ga").accuracies[k].value for k in found.to_keep]
    assert kept.value == pytest.approx(np.mean(each))
    assert "does not separate from its simplest controls" in found.mask_verdict()


@pytest.mark.parametrize(
    ("random_mask", "words"),
    [((0.9, 0.5), "Better than both, and worse nowhere, at 10 %"), (None, "is missing")],
)
def test_verdict_about_the_mask(benchmark, tmp_path, random_mask, words):
    knows = {"mmunlearner": (0.25, 0.99), "no_mask": (0.95, 0.4)}
    if random_mask:
        knows["random_mask"] = random_mask
    synthetic.write(tmp_path, benchmark, ratios=(10,), knows=knows)
    assert words in Comparison(tmp_path).mask_verdict()
