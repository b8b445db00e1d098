"""The trade-off: what is left of the forgotten faces against each thing that is to be kept."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.findings import Comparison, VariantResult
from mmunlearner_jax.comparison.jobs import RETAIN_ONLY, VANILLA
from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.evaluation.kinds import FORGET
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend
from mmunlearner_jax.unlearn.methods import METHODS

# Okabe and Ito's colours, told apart by the colour-blind; what has no style is grey.
STYLES = {
    VANILLA: {"marker": "o", "mfc": "white", "mec": GREY, "color": GREY, "ms": 10},
    RETAIN_ONLY: {"marker": "*", "mfc": "white", "mec": GREY, "color": GREY, "ms": 13},
    **{name: {"marker": m.marker, "color": m.color} for name, m in METHODS.items()},
}
DOT = {"marker": ".", "color": GREY, "ms": 6}
PLAIN = {"ms": 8, "mec": "white"}
FRONT = {"color": "#444444", "linewidth": 1, "linestyle": (0, (4, 2))}
TICKS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1)
_RING = [
    (radius * np.cos(angle), radius * np.sin(angle))
    for radius in (9, 15, 21, 28, 36)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False)
]


def trade_off(found: Comparison, ratio: int) -> Figure:
    """What is left of the faces against each thing to keep, a panel each.

    Methods have both 95 % intervals: thick by person, thin by seed. Controls are numbers.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    rows = [row for row in found.rows[ratio] if FORGET in row.accuracies]
    grey = [row.name for row in rows if row.name not in STYLES]
    numbers = {name: str(n) for n, name in enumerate(grey, start=1)}
    with matplotlib.rc_context(LOOK):
        across = min(3, len(found.to_keep)) or 1
        down = -(-len(found.to_keep) // across) or 1
        size = 11 * across / 3, (44 * down + 8) / 10
        figure = Figure(figsize=size, layout="constrained", dpi=72)  # a pixel is a point
        panels = figure.subplots(down, across, sharex=True, squeeze=False)
        keys = [key(r.label, **_style(r.name, numbers)) for r in rows]
        front = Line2D([], [], label="Pareto front", **FRONT)
        legend(figure, [*keys, front], ncols=4)
        for axes, kind in zip(panels.flat, found.to_keep, strict=False):
            _panel(axes, found, ratio, kind)
        for axes in panels.flat[len(found.to_keep) :]:
            axes.set_axis_off()
        for axes in panels[-1]:
            axes.set_xlabel("forgotten faces, % right")
        for axes in panels[:, 0]:
            axes.set_ylabel("% right (stretched towards 100)")
        figure.draw_without_rendering()  # where points lie is known from here on
        for axes, kind in zip(panels.flat, found.to_keep, strict=False):
            _number(axes, [row for row in rows if kind in row.accuracies], kind, numbers)
    return figure


def _style(name: str, numbers: Mapping[str, str]) -> dict:
    if name in numbers:
        return {
            "marker": f"${numbers[name]}$",
            "color": "#444444",
            "ms": 5 + 3 * len(numbers[name]),
        }
    return PLAIN | STYLES[name]


def _panel(axes: Axes, found: Comparison, ratio: int, kind: Kind) -> None:
    # Most of what is to be kept is near 100 %, and what is not is far from it.
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.sqrt(1.04 - np.minimum(y, 1.04)), lambda v: 1.04 - v**2),
    )
    rows = {row.name: row for row in found.rows[ratio] if {FORGET, kind} <= row.accuracies.keys()}
    low = min((row.accuracies[kind].value for row in rows.values()), default=0.0)
    axes.set_xlim(0, 1.04)
    axes.set_ylim(max(0.0, low - 0.1), 1.02)
    axes.set_yticks(TICKS)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.set_title(found.about[kind].label, loc="left")
    axes.axvline(found.chance, color=GREY, linestyle=":", linewidth=1)
    if kind == found.to_keep[0]:
        axes.annotate(
            "guessing",
            (found.chance, 0.02),
            (-3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=GREY,
        )
    for name, row in rows.items():
        x, y = row.accuracies[FORGET], row.accuracies[kind]
        style = PLAIN | STYLES[name] if name in STYLES else DOT
        if name in STYLES and row.unlearned:
            _bars(axes, x, y, style["color"])
        axes.plot(x.value, y.value, zorder=4 if name in STYLES else 3, clip_on=False, **style)
    if front := [rows[name] for name in found.front(ratio, kind)]:
        # Below guessing nothing more is forgotten; to the right no more than the last is kept.
        x = [max(found.chance, row.accuracies[FORGET].value) for row in front]
        y = [row.accuracies[kind].value for row in front]
        axes.step([*x, 1.04], [*y, y[-1]], where="post", zorder=1, **FRONT)


def _bars(axes: Axes, x: Estimate, y: Estimate, colour: str) -> None:
    for one, other, line in ((x, y, axes.hlines), (y, x, axes.vlines)):
        for score, width, alpha in ((one.t, 0.9, 0.75), (one.people, 3.5, 0.35)):
            if score:
                low, high = np.clip(score["ci95"], 0, 1)
                line(other.value, low, high, colors=colour, linewidth=width, alpha=alpha)


def _number(
    axes: Axes, rows: Sequence[VariantResult], kind: Kind, numbers: Mapping[str, str]
) -> None:
    """Writes the numbers of the grey dots, each at the nearest place that is free."""
    at = {row.name: (row.accuracies[FORGET].value, row.accuracies[kind].value) for row in rows}
    pixels = {name: axes.transData.transform(point) for name, point in at.items()}
    taken = list(pixels.values())
    for name in [name for name in at if name in numbers]:
        room = [min(np.hypot(*(pixels[name] + o - t)) for t in taken) for o in _RING]
        best = next((n for n, space in enumerate(room) if space > 8.5), int(np.argmax(room)))
        taken.append(pixels[name] + _RING[best])
        leader = {"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkA": 3, "shrinkB": 1}
        axes.annotate(
            numbers[name],
            at[name],
            _RING[best],
            textcoords="offset points",
            fontsize=7.5,
            color="#333333",
            ha="center",
            va="center",
            zorder=5,
            arrowprops=leader if best >= 12 else None,
        )
