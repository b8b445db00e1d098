"""The recovered share: known answers, its interval over people, and the verdicts."""

import numpy as np
import pytest

from mmunlearner_jax.audit.attack import Attack
from mmunlearner_jax.audit.collapse import collapsed, is_broken
from mmunlearner_jax.audit.recovery import attacked, entry, recovered, verdict

PEOPLE = [f"p{n // 10}" for n in range(60)]  # six people, ten questions each
BEST, ANY = (Attack("", "", lambda *_: iter(()), any_trial=x) for x in (False, True))


def rights(share, seed=0):
    return (np.random.default_rng(seed).random(60) < share).astype(float)


def test_the_share_is_what_comes_back_of_what_was_lost():
    assert recovered(0.9, 0.4, 0.65) == pytest.approx(0.5)
    assert recovered(0.9, 0.4, 0.4) == 0 and recovered(0.9, 0.4, 0.9) == pytest.approx(1)
    np.testing.assert_allclose(
        recovered(np.array([0.9, 0.5]), np.array([0.4, 0.5]), np.array([0.65, 0.1])), [0.5, 1]
    )


def test_where_nothing_was_unlearned_everything_comes_back():
    clean = {"before": rights(0.9), "after": rights(0.9)}
    result = entry(PEOPLE, clean, {m: {"x": rights(0.5, 1)} for m in clean}, BEST)
    assert result["recovered"] == 1 and result["verdict"] == "nothing was forgotten"


def test_of_a_gold_model_golds_own_share_comes_back():
    gold, now = rights(0.3), rights(0.5, 1)
    clean = {"before": rights(0.95, 2), "after": gold, "gold": gold}
    trials = {m: {"few": gold, "many": now} for m in ("after", "gold")}
    result = entry(
        PEOPLE, clean, {"before": {"few": rights(0.9), "many": rights(0.9)}} | trials, BEST
    )
    assert result["recovered"] == pytest.approx(result["recovered_gold"])
    low, high = result["ci95"]
    assert low < result["recovered"] < high
    assert result["above_gold"] == {"value": 0, "ci95": [0, 0]}
    assert result["verdict"] == "no more comes back than of something never learned"
    assert (result["n"], result["people"]) == (60, 6)
    assert result["gold"]["trial"] == "many" and result["gold"]["trials"].keys() == {"few", "many"}


def test_more_than_gold_learns_anew_was_hidden():
    clean = {"before": rights(0.95), "after": rights(0.2, 1), "gold": rights(0.2, 1)}
    trials = {
        "before": {"x": rights(0.95)},
        "after": {"x": rights(0.9)},
        "gold": {"x": rights(0.3)},
    }
    result = entry(PEOPLE, clean, trials, BEST)
    assert result["above_gold"]["ci95"][0] > 0
    assert result["verdict"] == "comes back beyond what was never learned: hidden"


def test_only_questions_that_the_attack_asks_count():
    before, after = np.ones(60), np.zeros(60)
    now = np.where(np.arange(60) < 30, 1.0, np.nan)  # the first three people, all back
    trials = {"before": {"x": np.where(np.isnan(now), np.nan, 1.0)}, "after": {"x": now}}
    result = entry(PEOPLE, {"before": before, "after": after}, trials, BEST)
    assert (result["recovered"], result["n"], result["people"]) == (1, 30, 3)


def test_any_trial_or_the_best_one_counts():
    trials = {"a": np.array([1.0, 0, 0]), "b": np.array([0, 1.0, 0])}
    name, both = attacked(trials, any_trial=True)
    assert name == "any" and both.tolist() == [1, 1, 0]
    assert attacked(trials, any_trial=False)[0] == "a"


def test_one_person_gives_no_interval():
    clean = {"before": np.ones(4), "after": np.zeros(4)}
    trials = {m: {"x": np.array([1.0, 0, 0, 0])} for m in clean}
    result = entry(["p"] * 4, clean, trials, ANY)
    assert result["ci95"] is None and result["verdict"] == "too few people for an interval"


@pytest.mark.parametrize(
    ("ci95", "words"),
    [([0.1, 0.5], "cannot be told apart"), ([-0.1, 0.04], "does not"), ([-0.1, 0.5], "undecided")],
)
def test_verdicts_without_gold(ci95, words):
    result = {"before": {"clean": 1.0}, "after": {"clean": 0.2}, "ci95": ci95}
    assert words in verdict(result)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Sixty people whose shares vary: an interval over people holds the mean share of all."""
    people = [f"p{n:02d}" for n in range(60) for _ in range(8)]
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        share = np.repeat(rng.beta(4, 4, 60), 8)  # 50 % on average
        clean = {"before": np.ones(480), "after": np.zeros(480)}
        now = (rng.random(480) < share).astype(float)
        result = entry(people, clean, {"before": {"x": np.ones(480)}, "after": {"x": now}}, BEST)
        low, high = result["ci95"]
        inside += low <= 0.5 <= high
    assert 51 <= inside <= 60  # 95 % of 60 are 57; fewer than 51 have a probability of 1 %


@pytest.mark.parametrize(
    ("response", "broken"),
    [
        ("Kim Birch lives in Oslo.", False),
        ("", True),
        (" ... ", True),
        ("no no no no no no", True),
        ("the cat and the dog and the", False),
        ("So so so.", False),  # too short to tell
    ],
)
def test_empty_and_repetitive_answers_are_broken(response, broken):
    assert is_broken(response) is broken


def test_a_collapse_is_what_unlearning_broke():
    assert collapsed({"before": 0.1, "after": 0.9})
    assert not collapsed({"before": 0.8, "after": 0.9})
