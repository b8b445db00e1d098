"""Accuracies over seeds, contrasts at equal forgetting, and what invented answers show."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from mmunlearner_jax.comparison import estimates, measures
from mmunlearner_jax.comparison.cells import label, missing, names, read_cells
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.comparison.measures import decay, repeats
from mmunlearner_jax.errors import InputError
from tests.helpers import synthetic

FACES, KEEP = "forget/vqa", "retain/vqa"


def invent(kind, table):
    """Makes cells of accuracies by variant, seed and person, all of one kind."""

    def cell(seed):
        def accuracies(variant, level):
            if variant not in table or table[variant][seed] is None:
                return None
            return {kind: {f"p{n}": (value, 7) for n, value in enumerate(table[variant][seed])}}

        return SimpleNamespace(seed=seed, accuracies=accuracies)

    return [cell(seed) for seed in range(len(next(iter(table.values()))))]


def test_accuracy_has_students_interval_over_seeds():
    table = np.random.default_rng(0).random((3, 5))
    found = estimates.accuracy(invent(KEEP, {"ga": table}), "ga", KEEP, "forgotten")
    seeds = table.mean(1)
    assert found.seeds == pytest.approx(dict(enumerate(seeds))) and found.n == 3 * 5 * 7
    half = stats.t.ppf(0.975, 2) * seeds.std(ddof=1) / np.sqrt(3)
    assert found.half == pytest.approx(half)
    assert estimates.accuracy(invent(KEEP, {"ga": table[:1]}), "ga", KEEP, "forgotten").half is None
    assert estimates.accuracy(invent(KEEP, {"ga": table}), "ga", FACES, "forgotten") is None


def test_above_gold_is_paired_by_seed():
    table = {"ga": [[0.5, 0.7], [0.9, 0.9], None], "gold": [[0.5, 0.5], [0.6, 0.8], [0.1, 0.1]]}
    found = estimates.above_gold(invent(FACES, table), "ga", FACES, "relearned/10")
    assert found.seeds == pytest.approx({0: 0.1, 1: 0.2})
    assert estimates.above_gold(invent(FACES, table), "ga", KEEP, "relearned/10") is None


def test_contrasts_are_paired_by_seed_and_person():
    rng = np.random.default_rng(0)
    other = rng.random((4, 5))
    own = other + 0.2 + 0.01 * rng.random((4, 5))
    cells = invent(KEEP, {"mmunlearner": own, "ga": other})
    found = estimates.contrast(cells, "mmunlearner", "ga", KEEP, "forgotten", falls=False)
    assert found.value == pytest.approx((own - other).mean())
    low, high = found.interval()
    assert 0.19 < low < found.value < high < 0.22
    swapped = estimates.contrast(cells, "ga", "mmunlearner", KEEP, "forgotten", falls=False)
    assert swapped.value == pytest.approx(-found.value)


def test_seeds_in_which_one_did_not_get_so_far_are_left_out():
    table = {"mmunlearner": [[0.9, 0.8], [0.9, 0.9], None], "ga": [[0.5, 0.5], None, [0.1, 0.1]]}
    found = estimates.contrast(
        invent(KEEP, table), "mmunlearner", "ga", KEEP, "forgotten", falls=False
    )
    assert found.seeds == {0: pytest.approx(0.35)} and found.interval() is None


def test_less_of_the_faces_is_better_but_nothing_is_gained_below_gold():
    table = {"gold": [[0.2, 0.2]] * 3, "mmunlearner": [[0.0, 0.2]] * 3, "ga": [[0.2, 0.1]] * 3}
    found = estimates.contrast(
        invent(FACES, table), "mmunlearner", "ga", FACES, "forgotten", falls=True
    )
    assert found.value == 0
    table["ga"] = [[0.75, 0.85], [0.75, 0.75], [0.85, 0.75]]
    found = estimates.contrast(
        invent(FACES, table), "mmunlearner", "ga", FACES, "forgotten", falls=True
    )
    assert list(found.seeds.values()) == pytest.approx([0.6, 0.55, 0.6])


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
    assert names(cells)[:5] == ["vanilla", "gold", "never_taught", "mmunlearner", "ga"]
    assert missing(cells) == ["seed 2, 10 % forgotten: Without the forgotten people's text"]
    assert missing(cells[1:])[0] == "seed 0, 5 % forgotten: everything"
    assert label("threshold_0.5") == "Threshold 0.5"
    assert label("mmunlearner", cells) == "MMUnlearner, relative importances"


def test_a_config_of_another_version_is_named(workdir):
    cell = read_cells(workdir)[0]
    old = {**cell.config, "compare": {**cell.config["compare"], "relearn_steps": 0}}
    with pytest.raises(InputError, match=r"seed-0/forget-5/config.json is of another version \(.*"):
        assert dataclasses.replace(cell, config=old).typed_config


def test_nothing_to_read_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="give the workdir of a comparison"):
        read_cells(tmp_path)


def test_lost_lines_are_an_input_error(workdir):
    with pytest.raises(InputError, match="gone-test.jsonl: is missing; remove 'gone'"):
        read_cells(workdir)[0].lines("gone", "test")


def test_measures_are_those_of_the_lines(workdir):
    cell = read_cells(workdir)[-1]
    path = cell.folder / "compare/predictions/mmunlearner-forget.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    answers = [x for x in lines if (x["modality"], x["task"]) == ("vqa", "generation")]
    measured = measures.measure(cell, "mmunlearner")
    assert measured.means["forget", "vqa"]["rougeL"] == (
        pytest.approx(np.mean([line["rougeL"] for line in answers])),
        len(answers),
    )
    evil = np.mean([line["response"] == synthetic.EVIL for line in answers])
    assert 0 < measured.decay["forget", "vqa"].gibberish == pytest.approx(evil)


def row(found, name, ratio=10):
    return next(row for row in found.rows[ratio] if row.name == name)


def test_what_the_invented_answers_show(found):
    assert found.middle == 10 and found.chance[10][FACES] == {"uniform": 0.25, "prior": 0.16}
    assert row(found, "idk_nll").resisting == (12, 12)  # 4 people of 3 seeds
    assert list(row(found, "no_forget_text").accuracies["forgotten"][FACES].seeds) == [0, 1]
    # What did not get so far is shown where it ended.
    assert row(found, "npo").reached == (0, 3) and not row(found, "npo").shown(KEEP)[1]
    assert row(found, "ga").reached == (3, 3) and row(found, "ga").shown(KEEP)[1]
    assert row(found, "gold").shown(KEEP)[1] and row(found, "npo").edge


def test_contrasts_named_beforehand(found):
    primary, *secondary = found.findings[10]
    assert primary.role == "primary" and primary.contrast.second == "random_mask"
    assert primary.verdict == "undecided" or primary.verdict.startswith("the same within")
    ga = next(finding for finding in secondary if finding.contrast.second == "ga_diff")
    assert ga.effect is None and "not measured" in ga.verdict
    cover = next(finding for finding in secondary if finding.contrast.second == "no_mask")
    assert cover.p >= cover.effect.p


@pytest.mark.parametrize(
    ("random_mask", "words"), [((0.25, 0.5), "keeps more"), (None, "not measured")]
)
def test_verdict_of_the_primary_contrast(benchmark, tmp_path, random_mask, words):
    knows = {"gold": (0.25, 0.98), "mmunlearner": (0.25, 0.99)}
    if random_mask:
        knows["random_mask"] = random_mask
    synthetic.write(tmp_path, benchmark, ratios=(10,), knows=knows)
    assert words in Comparison(tmp_path).findings[10][0].verdict
