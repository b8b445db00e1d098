"""Learning rates are chosen where a grid brackets them, on all development seeds together."""

import json
import math

import pytest

from mmunlearner_jax.comparison.tuning import Choice, best, check_rates, choose, is_tuned, search
from mmunlearner_jax.errors import InputError


def trial(rate, kept=None, left=0.5):
    return {"learning_rate": rate, "reached": kept is not None, "left": left, "kept": kept}


def tried(optimum, *, diverges=math.inf):
    """What a method keeps, by the distance of the rate from its optimum."""
    rates = []

    def attempt(rate):
        rates.append(rate)
        if rate >= diverges:
            return {"learning_rate": rate, "diverged": True}
        return trial(rate, 1 - abs(math.log(rate / optimum)) / 100)

    return attempt, rates


def test_a_best_rate_inside_the_grid_is_taken():
    attempt, rates = tried(2e-4)
    made = search((1e-4, 2e-4, 4e-4), 2, attempt)
    assert rates == [1e-4, 2e-4, 4e-4]
    assert best({t["learning_rate"]: [t] for t in made}) == Choice(2e-4, False)


@pytest.mark.parametrize(("optimum", "last"), [(4.1e-4, 8e-4), (2.4e-5, 1.25e-5)])
def test_a_best_rate_at_the_edge_extends_the_grid(optimum, last):
    attempt, rates = tried(optimum)
    made = search((1e-4, 2e-4), 3, attempt)
    assert rates[-1] == pytest.approx(last)
    assert not best({t["learning_rate"]: [t] for t in made}).edge


def test_extensions_end_and_what_is_still_at_the_edge_is_told():
    attempt, rates = tried(1.0)
    made = search((1e-4, 2e-4), 1, attempt)
    assert rates == pytest.approx([1e-4, 2e-4, 4e-4])
    assert best({t["learning_rate"]: [t] for t in made}).edge


def test_a_grid_does_not_go_on_where_runs_diverge():
    attempt, rates = tried(1.0, diverges=3e-4)
    made = search((1e-4, 2e-4, 4e-4), 3, attempt)
    assert rates == [1e-4, 2e-4, 4e-4]
    assert [t["learning_rate"] for t in made if "diverged" not in t] == [1e-4, 2e-4]
    attempt, rates = tried(1.0, diverges=0.0)
    assert all("diverged" in t for t in search((1e-4, 2e-4), 3, attempt)) and len(rates) == 2


def test_rates_that_are_added_are_tried_beside_earlier_ones():
    attempt, rates = tried(8e-4)
    made = search((1e-4, 2e-4), 0, attempt)
    assert is_tuned(made, (1e-4, 2e-4)) and not is_tuned(made, (1e-4, 2e-4, 4e-4))
    made = search((1e-4, 2e-4, 4e-4), 2, attempt, made)
    assert rates == pytest.approx([1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3])
    assert best({t["learning_rate"]: [t] for t in made}) == (pytest.approx(8e-4), False)
    assert not is_tuned(None, (1e-4,))


def test_enough_forgotten_comes_first_then_what_is_kept_then_what_is_left():
    assert best({1.0: [trial(1.0, left=0.2)], 2.0: [trial(2.0, kept=0.1)]}).rate == 2.0
    assert best({1.0: [trial(1.0, 0.9)], 2.0: [trial(2.0, 0.8)]}).rate == 1.0
    assert best({1.0: [trial(1.0, left=0.6)], 2.0: [trial(2.0, left=0.3)]}).rate == 2.0
    # One seed of two that did not forget enough is not enough.
    assert best({1.0: [trial(1.0, 0.9), trial(1.0)], 2.0: 2 * [trial(2.0, 0.1)]}).rate == 2.0


def test_what_relearning_brings_back_counts_against_a_rate():
    hidden, gone = trial(1.0, 0.9) | {"returns": 0.3}, trial(2.0, 0.8) | {"returns": 0.1}
    assert best({1.0: [hidden], 2.0: [gone]}).rate == 2.0
    assert best({1.0: [trial(1.0, 0.9)], 2.0: [gone]}).rate == 1.0


def test_workdirs_choose_together(tmp_path):
    for name, second in (("a", 0.1), ("b", 0.7)):
        (tmp_path / name).mkdir()
        trials = [trial(1.0, 0.5), trial(2.0, second), trial(3.0, 0.2)]
        trials.append(trial(4.0, 0.99) if name == "a" else {"learning_rate": 4.0, "diverged": True})
        tuning = {"npo": trials, "ga": []}
        (tmp_path / name / "results.json").write_text(json.dumps({"tuning": tuning}))
    assert choose([tmp_path / "a"], ("npo", "ga")) == {"npo": Choice(4.0, True), "ga": None}
    assert choose([tmp_path / "a", tmp_path / "b"], ("npo",))["npo"] == Choice(1.0, True)
    with pytest.raises(InputError, match="run the stage tune"):
        choose([tmp_path / "c"], ("npo",))
    with pytest.raises(InputError, match="no learning rates of kl_min were tried"):
        choose([tmp_path / "a"], ("npo", "kl_min"))


def test_a_cell_that_was_scored_at_another_rate_is_refused(tmp_path):
    scored = {"npo": {"learning_rate": 1e-4}, "gold": {"learning_rate": None}}
    (tmp_path / "results.json").write_text(json.dumps({"variants": scored}))
    check_rates(tmp_path, {"npo": Choice(1e-4, False), "ga": Choice(1.0, True)})
    with pytest.raises(InputError, match=r"npo was scored at the learning rate 0.0001; .* 0.0002"):
        check_rates(tmp_path, {"npo": Choice(2e-4, False)})
