"""The recovered share: known answers, its interval over people, and the verdicts."""

import dataclasses

import numpy as np
import pytest

from mmunlearner_jax.audit.attack import Attack, Cost
from mmunlearner_jax.audit.collapse import collapsed, is_broken
from mmunlearner_jax.audit.recovery import entry, recovered, verdict

PEOPLE = [f"p{n // 10}" for n in range(60)]  # six people, ten questions each
BEST = Attack("", "", lambda *_: iter(()), lambda _: Cost(1))
ANY, MEAN = (dataclasses.replace(BEST, counts=how) for how in ("any", "mean"))


def rights(share, seed=0):
    return (np.random.default_rng(seed).random(60) < share).astype(float)


def test_the_share_is_what_comes_back_of_what_was_lost():
    assert recovered(0.9, 0.4, 0.65) == pytest.approx(0.5)
    assert recovered(0.9, 0.4, 0.4) == 0 and recovered(0.9, 0.4, 0.9) == pytest.approx(1)
    assert recovered(0.5, 0.5, 0.1) == 1


def test_where_nothing_was_unlearned_everything_comes_back():
    clean = {"before": rights(0.9), "after": rights(0.9)}
    result = entry(PEOPLE, clean, {m: {"x": rights(0.5, 1)} for m in clean}, BEST)
    assert result["recovered"] == 1 and result["verdict"] == "too little was forgotten to tell"


def test_of_a_gold_model_golds_own_share_comes_back():
    gold, now = rights(0.3), rights(0.5, 1)
    clean = {"before": rights(0.95, 2), "after": gold, "gold": gold}
    trials = {m: {"few": gold, "many": now} for m in ("after", "gold")}
    trials["before"] = {"few": rights(0.9), "many": rights(0.9)}
    result = entry(PEOPLE, clean, trials, BEST)
    assert result["recovered"] == pytest.approx(result["recovered_gold"])
    low, high = result["ci95"]
    assert low < result["recovered"] < high
    assert result["above_gold"] == {"value": 0, "ci95": [0, 0]}
    assert result["verdict"] == "recovers no more than gold"
    assert (result["n"], result["people"]) == (60, 6)
    assert result["gold"]["trial"] == "many" and result["gold"]["trials"].keys() == {"few", "many"}


def test_more_than_gold_learns_anew_was_hidden():
    clean = {"before": rights(0.95), "after": rights(0.2, 1), "gold": rights(0.2, 1)}
    after = {"x": rights(0.9)}
    trials = {"before": {"x": rights(0.95)}, "after": after, "gold": {"x": rights(0.3)}}
    result = entry(PEOPLE, clean, trials, BEST)
    assert result["above_gold"]["ci95"][0] > 0
    assert result["verdict"] == "recovers more than gold: hidden"


def test_a_model_that_forgot_less_than_gold_hides_nothing_that_does_not_come_back():
    clean = {"before": rights(0.95), "after": rights(0.7), "gold": rights(0.2, 1)}
    trials = {model: {"x": x} for model, x in clean.items()}  # the attack changes nothing
    result = entry(PEOPLE, clean, trials, BEST)
    assert result["recovered"] == 0 and result["above_gold"]["ci95"][0] > 0
    assert result["verdict"] == "less forgotten than gold already"


def test_only_questions_that_all_trials_ask_count():
    before, after = np.ones(60), np.zeros(60)
    half = np.arange(60) < 30  # the first three people, all back
    now = {"some": np.where(half, 1.0, np.nan), "all": np.zeros(60)}
    trials = {"before": {"x": np.ones(60)}, "after": now}
    result = entry(PEOPLE, {"before": before, "after": after}, trials, BEST)
    assert (result["recovered"], result["n"], result["people"]) == (1, 30, 3)
    trials["after"] = {"some": now["some"], "others": np.where(half, np.nan, 1.0)}
    verdict = entry(PEOPLE, {"before": before, "after": after}, trials, BEST)["verdict"]
    assert verdict == "not tried: no question is left to ask"
    trials["after"] = {}
    verdict = entry(PEOPLE, {"before": before, "after": after}, trials, BEST)["verdict"]
    assert verdict == "not tried: the model diverges in every trial"


def test_the_best_trial_any_of_them_or_their_mean_counts():
    clean = {"before": np.ones(4), "after": np.zeros(4)}
    trials = {m: {"a": np.array([1.0, 0, 0, 0]), "b": np.array([0, 1.0, 1, 0])} for m in clean}
    best, union, mean = (entry(list("ppqq"), clean, trials, x) for x in (BEST, ANY, MEAN))
    assert (best["after"]["trial"], best["recovered"]) == ("b", 0.5)
    assert (union["after"]["trial"], union["recovered"]) == ("any of 2", 0.75)
    assert (mean["after"]["trial"], mean["recovered"]) == ("mean of 2", 0.375)
    trials["before"] = {"b": trials["before"]["b"]}  # it diverged in the other
    mean = entry(list("ppqq"), clean, trials, MEAN)
    assert (mean["after"]["trial"], mean["recovered"]) == ("mean of 1", 0.5)


def test_one_person_gives_no_interval():
    clean = {"before": np.ones(4), "after": np.zeros(4)}
    trials = {m: {"x": np.array([1.0, 0, 0, 0])} for m in clean}
    result = entry(["p"] * 4, clean, trials, ANY)
    assert (
        result["ci95"] is None
        and result["verdict"] == "too few people or photographs for an interval"
    )


@pytest.mark.parametrize(
    ("ci95", "needs_gold", "words"),
    [
        ([0.1, 0.5], False, "comes back; a gold model would tell"),
        ([0.1, 0.5], True, "says nothing without a gold model"),
        ([-0.1, 0.04], False, "does not come back"),
        ([-0.1, 0.5], False, "undecided"),
    ],
)
def test_verdicts_without_gold(ci95, needs_gold, words):
    attack = dataclasses.replace(BEST, needs_gold=needs_gold)
    assert words in verdict({"ci95": ci95, "lost": {"ci95": [0.2, 0.4]}}, attack)


@pytest.mark.parametrize("number", [4, 20])
def test_the_interval_covers_the_truth_as_often_as_it_says(number):
    """Four people are as many as the example forgets."""
    people = [f"p{n:02d}" for n in range(number) for _ in range(8)]
    clean = {"before": np.ones(len(people)), "after": np.zeros(len(people))}
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        share = np.repeat(rng.beta(4, 4, number), 8)  # 50 % on average
        now = (rng.random(len(people)) < share).astype(float)
        trials = {"before": {"x": clean["before"]}, "after": {"x": now}}
        low, high = entry(people, clean, trials, BEST)["ci95"]
        inside += low <= 0.5 <= high
    assert 90 <= inside <= 100  # of 95; fewer than 90 have a probability of 3 %


@pytest.mark.parametrize(
    ("response", "broken"),
    [
        ("Kim Birch lives in Oslo.", False),
        ("", True),
        (" ... ", True),
        ("no no no no no no", True),
        ("the cat and the dog and the", False),
        ("So so so.", False),  # too short to tell
        ("\u042f \u043d\u0435 \u0437\u043d\u0430\u044e", True),  # Cyrillic
        ("Oslo \u5965", False),  # mostly Latin
        ("1998", False),
    ],
)
def test_empty_repetitive_and_foreign_answers_are_broken(response, broken):
    assert is_broken(response, "Where does this person live? Oslo") is broken


def test_without_a_text_to_compare_with_any_script_will_do():
    assert not is_broken("\u042f \u043d\u0435 \u0437\u043d\u0430\u044e")


def test_a_collapse_is_what_unlearning_broke():
    assert collapsed({"before": 0.1, "after": 0.9}, {})
    assert not collapsed({"before": 0.8, "after": 0.9}, {"before": 2.0, "after": 8.0})
    assert collapsed({"before": 0.1, "after": 0.1}, {"before": 2.0, "after": 21.0})
