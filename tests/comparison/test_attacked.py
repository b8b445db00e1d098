"""What attacks come to over the seeds of a comparison."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mmunlearner_jax.comparison.attacked import attacked, quotient


def entry(back, lost, above, verdict="undecided"):
    shares = {"recovered": back / lost, "back": back, "lost": {"value": lost}}
    return {**shares, "above_gold": {"value": above}, "verdict": verdict}


def cell(seed, **attacks) -> Any:
    return SimpleNamespace(seed=seed, audits={"npo": {"attacks": attacks}} if attacks else {})


def test_shares_are_pooled_so_that_a_seed_that_lost_little_weighs_little():
    cells = [cell(0, x=entry(0.4, 0.8, 0.1)), cell(1, x=entry(0.02, 0.01, 0.3, "other")), cell(2)]
    result = attacked(cells, "npo")["x"]
    assert result.recovered.value == pytest.approx(0.42 / 0.81)
    assert result.recovered.seeds == pytest.approx({0: 0.5, 1: 2.0})
    assert result.above_gold is not None and result.above_gold.value == pytest.approx(0.2)
    assert result.verdicts == {"undecided": 1, "other": 1}
    assert attacked(cells, "ga") == {}
    nothing_lost = {**entry(0.0, 1.0, 0.0), "recovered": 1.0, "lost": {"value": 0.0}}
    assert attacked([cell(0, x=nothing_lost)], "npo")["x"].recovered.value == 1
    assert attacked([cell(0, x={"verdict": "not tried: why"})], "npo") == {}


def test_with_equal_denominators_the_interval_is_students():
    backs = [0.1, 0.2, 0.4]
    found = quotient({n: (back, 0.5) for n, back in enumerate(backs)})
    shares = np.array(backs) / 0.5
    assert found is not None and found.half is not None
    assert found.value == pytest.approx(shares.mean())
    assert found.half == pytest.approx(stats.sem(shares) * stats.t.ppf(0.975, 2))
    one = quotient({0: (0.1, 0.5)})
    assert one is not None and one.half is None
    assert quotient({}) is None and quotient({0: (0.1, 0.0)}) is None
