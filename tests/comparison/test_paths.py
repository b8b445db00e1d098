"""Interpolation along a path, on numbers worked by hand."""

import math

import numpy as np
import pytest

from mmunlearner_jax.comparison.paths import Crossing, area, crossing


def test_the_first_crossing_counts_and_values_are_interpolated():
    left = [1.0, 0.8, 0.4, 0.6, 0.2]
    place = crossing(left, 0.5)
    assert place == Crossing(2, pytest.approx(0.75))  # 0.8 to 0.4: three quarters of the way
    assert place.of([100, 90, 70, 0, 0]) == pytest.approx(0.25 * 90 + 0.75 * 70)
    assert crossing(left, 0.4) == Crossing(2, 1.0)
    assert crossing(left, 0.3) == Crossing(4, pytest.approx(0.75))
    assert crossing(left, 0.1) is None


def test_a_path_that_begins_below_the_level():
    place = crossing([0.2, 0.1], 0.5)
    assert place == Crossing(0, 1.0) and place.of([7, 8]) == 7


def test_a_diverged_model_has_not_forgotten():
    with pytest.raises(ValueError, match="diverged"):
        crossing([1.0, math.nan], 0.25)


def test_area_is_the_mean_over_levels():
    # Keeps all down to 0.6 and then falls in a line from 1 to 0.5 at 0.2.
    left, kept = [1.0, 0.6, 0.2], [1.0, 1.0, 0.5]
    levels = np.linspace(1.0, 0.2, 21)
    wanted = np.mean([1.0 if x >= 0.6 else 1 - 0.5 * (0.6 - x) / 0.4 for x in levels])
    assert area(left, kept, 1.0, 0.2) == pytest.approx(wanted)
    assert area(left, kept, 1.0, 0.1) is None
    assert area([1.0, 0.0], [0.8, 0.8], 1.0, 0.25) == pytest.approx(0.8)
    assert area([0.2, 0.1], [1.0, 1.0], 0.2, 0.3) is None  # nothing was forgotten to come here
