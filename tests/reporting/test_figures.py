import math

import numpy as np
import pytest

from mmunlearner_jax.reporting.figures import line_chart, svg


def test_axes_begin_at_zero_and_curves_are_named_with_their_last_value():
    axes = line_chart("loss", {"forget": [(0, 0.0), (5, 4.0), (10, 8.0)]}).axes[0]
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [5, 4], [10, 8]])
    assert line.get_label() == "forget 8" and axes.get_title("left") == "loss"
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 8


def test_a_logarithmic_chart_has_decades():
    axes = line_chart("loss", {"loss": [(1, 10.0), (2, 1.0), (4, 0.1)]}, log=True).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim() == pytest.approx((0.1, 10))


def test_long_curves_are_thinned_and_stay_inside():
    curve = [(step, math.exp(-step / 900)) for step in range(1, 5001)]
    axes = line_chart("loss", {"a": curve, "b": [(1, 0.5)]}).axes[0]
    points = axes.get_lines()[0].get_xydata()
    assert len(points) == 240
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    assert (points >= low).all() and (points <= high).all()


def test_curves_of_zeros_can_be_drawn():
    figure = line_chart("remembered", {"fraction": [(6, 0.0), (12, 0.0)]})
    assert figure.axes[0].get_ylim() == (0, 1)
    assert svg(figure) == svg(figure)
