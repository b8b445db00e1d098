import math

import numpy as np

from mmunlearner_jax.stages.plots import line_chart


def positions(points):
    return np.array([point.split(",") for point in points.split()], float)


def test_points_are_scaled_to_the_ticks():
    chart = line_chart("loss", {"forget": [(0, 0.0), (5, 4.0), (10, 8.0)]})
    assert chart.y_ticks == [(100, "0"), (75, "2"), (50, "4"), (25, "6"), (0, "8")]
    assert chart.x_ticks[0] == (0, "0") and chart.x_ticks[-1] == (100, "10")
    np.testing.assert_allclose(positions(chart.lines[0].points), [[0, 100], [50, 50], [100, 0]])
    assert chart.lines[0].last == "8"


def test_a_logarithmic_chart_has_decades():
    chart = line_chart("loss", {"loss": [(1, 10.0), (2, 1.0), (4, 0.1)]}, log=True)
    assert [label for _, label in chart.y_ticks] == ["0.1", "1", "10"]
    np.testing.assert_allclose(positions(chart.lines[0].points)[:, 1], [0, 50, 100])


def test_long_curves_are_thinned_and_stay_inside():
    curve = [(step, math.exp(-step / 900)) for step in range(1, 5001)]
    chart = line_chart("loss", {"a": curve, "b": [(1, 0.5)]})
    points = positions(chart.lines[0].points)
    assert len(points) == 240
    assert points.min() >= 0 and points.max() <= 100


def test_curves_of_zeros_can_be_drawn():
    chart = line_chart("remembered", {"fraction": [(6, 0.0), (12, 0.0)]})
    assert (positions(chart.lines[0].points)[:, 1] == 100).all()
