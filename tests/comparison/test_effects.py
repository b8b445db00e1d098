"""Intervals, Holm's rule and equivalence, against hand-worked numbers and simulation."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmunlearner_jax.comparison import effects
from mmunlearner_jax.comparison.effects import Effect, effect, holm


def crossed(rng, *, seeds=10, people=12, mean=0.03, seed_sd=0.02, person_sd=0.03, noise=0.05):
    of_seed = rng.normal(0, seed_sd, seeds)
    of_person = rng.normal(0, person_sd, people)
    return {
        (s, f"p{p}"): mean + of_seed[s] + of_person[p] + rng.normal(0, noise)
        for s in range(seeds)
        for p in range(people)
    }


def test_holm_by_hand():
    # 0.01 x 3, 0.02 x 2, 0.04 x 1, and never less than the one before.
    assert holm([0.04, 0.01, None, 0.02]) == pytest.approx([0.04, 0.03, None, 0.04])
    assert holm([None]) == [None]


def test_two_people_give_an_interval_over_seeds_alone():
    values = {(s, p): 0.1 * s for s in range(4) for p in ("a", "b")}
    found = effect(values)
    wanted = stats.ttest_1samp([0.0, 0.1, 0.2, 0.3], 0)
    assert found.people == 0 and found.value == pytest.approx(0.15)
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.interval() == pytest.approx(wanted.confidence_interval(0.95))


def test_people_who_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = effect(crossed(rng, person_sd=0.0))
    apart = effect(crossed(rng, person_sd=0.2))
    assert apart.people == 12 and apart.error > 2 * alike.error
    assert apart.error > stats.sem(list(apart.seeds.values()))


def test_the_interval_covers_what_it_should():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        low, high = effect(crossed(rng, seeds=6, people=8)).interval()
        covered += low < 0.03 < high
    assert covered >= 52  # 57 of 60 expected


def test_one_seed_says_nothing_and_equal_differences_have_no_p_value():
    assert effect({(0, "a"): 0.5, (0, "b"): 0.3}).interval() is None
    same = effect({(s, p): 0.0 for s in range(3) for p in "abc"})
    assert same.p is None and same.interval() == (0.0, 0.0) and same.same(0.01)
    assert effect({}) is None


def test_equivalence_needs_a_narrow_interval():
    narrow, wide = (Effect(0.01, dict.fromkeys(range(10), 0.01), 10, e) for e in (0.01, 0.04))
    # Half of the 90 % interval is 1.833 standard errors.
    assert narrow.same(0.03) and not narrow.same(0.025)
    assert not wide.same(0.05)


def test_few_people_leave_few_degrees_of_freedom():
    ten = dict.fromkeys(range(10), 0.1)
    few, many, none = (Effect(0.1, ten, people, 0.05) for people in (3, 40, 0))
    assert (few.freedom, many.freedom, none.freedom) == (2, 9, 9)
    assert few.interval()[1] - 0.1 == pytest.approx(4.303 * 0.05, rel=1e-3)  # t with 2
    assert few.p == pytest.approx(2 * stats.t.sf(2, 2)) and few.p > many.p == none.p
    assert few.detectable > many.detectable


def test_a_model_that_cannot_be_fitted_leaves_an_interval_over_seeds(monkeypatch):
    values = crossed(np.random.default_rng(0))
    for broken in (float("nan"), np.linalg.LinAlgError):

        def fit(self, broken=broken, **_):
            if broken is np.linalg.LinAlgError:
                raise broken
            numbers = pd.Series([broken])
            return SimpleNamespace(fe_params=numbers, bse_fe=numbers)

        monkeypatch.setattr(effects.MixedLM, "fit", fit)
        found = effect(values)
        assert found.people == 0 and found.error == pytest.approx(
            stats.sem(list(found.seeds.values()))
        )


def test_the_detectable_difference():
    found = Effect(0.0, dict.fromkeys(range(10), 0.0), 0, 0.01)
    # Ten pairs find 1.00 standard deviations with a power of 80 %; one is sqrt(10) errors.
    assert found.detectable == pytest.approx(0.01 * np.sqrt(10) * 1.0, rel=0.01)
