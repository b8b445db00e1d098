"""Line charts as what a page has to draw: points and ticks in percent of the area."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: what it shows.
        points: "x,y x,y ..." for an SVG polyline, both in [0, 100], y downwards.
        last: its last value, as text.
    """

    label: str
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart: ticks are (position in percent, label), y positions counted from the top."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def line_chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, log: bool = False
) -> Chart:
    """Scales curves to one area and finds round ticks.

    Args:
        title: of the chart.
        series: (step, value) pairs by label; finite values, and positive ones if `log`.
        log: whether the y axis is logarithmic.
    """
    curves = {label: _thin(np.asarray(pairs, np.float64)) for label, pairs in series.items()}
    whole = np.concatenate(list(curves.values()))
    x_ticks, y_ticks = _ticks(whole[:, 0].max()), _ticks(whole[:, 1].max())
    if log:
        low, high = np.floor(np.log10([whole[:, 1].min(), 0.999 * whole[:, 1].max()]))
        y_ticks = 10.0 ** np.arange(low, high + 2)

    def x(value: np.ndarray) -> np.ndarray:
        return 100 * value / max(whole[:, 0].max(), 1)

    def y(value: np.ndarray) -> np.ndarray:
        value, bottom, top = (np.log10(v) if log else v for v in (value, y_ticks[0], y_ticks[-1]))
        return 100 * (top - value) / (top - bottom)

    return Chart(
        title,
        [
            Line(
                label,
                " ".join(
                    f"{px:.2f},{py:.2f}" for px, py in zip(x(c[:, 0]), y(c[:, 1]), strict=True)
                ),
                f"{c[-1, 1]:.3g}",
            )
            for label, c in curves.items()
        ],
        [(float(x(v)), f"{v:,.0f}") for v in x_ticks if v <= whole[:, 0].max()],
        [(float(y(v)), f"{v:g}") for v in y_ticks],
    )


def _thin(curve: np.ndarray) -> np.ndarray:
    """Averages neighbours until no more points are left than can be seen; [N, 2] -> [n, 2]."""
    parts = np.array_split(curve, min(len(curve), _MOST_POINTS))
    return np.stack([part.mean(0) for part in parts])


def _ticks(high: float) -> np.ndarray:
    """Four to six round values from 0 to at least `high`, or to 1 if that is 0."""
    high = high or 1.0
    unit = 10 ** np.floor(np.log10(high / 5))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= high / 5)
    return step * np.arange(np.ceil(high / step - 1e-9) + 1)
