"""The figures of a comparison."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.comparison.estimates import FORGET, Estimate, verdict
from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.evaluation.kinds import ASKED
from mmunlearner_jax.evaluation.selection import kept
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend

RING: dict[str, Any] = {"mec": "#d55e00", "ms": 11, "mew": 1.6}


def grid_points(found: Comparison, ratio: int) -> Figure:
    """Every look at what is set apart: what is left over forget steps, a panel a method.

    A line is one learning rate in one seed; above its end is what it kept, and the chosen run is
    ringed.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    cells = found.at(ratio)
    methods = [r for r in found.rows[ratio] if r.unlearned and not r.control]
    rates = sorted({p["learning_rate"] for c in cells for m in methods for p in _looks(c, m.name)})
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1, len(rates) or 1))
    colours = dict(zip(rates, shades, strict=False))
    enough = cells[0].config["compare"]["forgotten"]
    with matplotlib.rc_context(LOOK):
        across = 4 if len(methods) > 3 else max(1, len(methods))
        down = max(1, -(-len(methods) // across))
        figure = Figure(figsize=(11, 3 * down + 0.8), layout="constrained")
        panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
        for axes, row in zip(panels, methods, strict=False):
            for cell in cells:
                _looks_of(axes, _looks(cell, row.name), colours)
            axes.set_title(row.label, loc="left")
            axes.axhline(enough, color=GREY, linestyle=":", linewidth=1)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
            axes.tick_params(labelbottom=True)
        for axes in panels[len(methods) :]:
            axes.set_axis_off()
        for axes in panels[-across:]:
            axes.set_xlabel("forget steps")
        for axes in panels[::across]:
            axes.set_ylabel("% right")
        keys = [Line2D([], [], color=c, marker=".", label=f"{r:g}") for r, c in colours.items()]
        marks = [
            key("mean of the rest, at the end", marker="^", mfc="none", mec=GREY, ms=6),
            key("chosen", marker="o", mfc="none", **RING),
            Line2D([], [], color=GREY, linestyle=":", label="forgotten enough"),
        ]
        legend(figure, [*keys, *marks], ncols=8, title="Forgotten faces, by learning rate")
    return figure


def _looks(cell: Cell, name: str) -> Sequence[Mapping]:
    return cell.variants[name]["points"] if name in cell.variants else []


def _looks_of(axes: Axes, points: Sequence[Mapping], colours: Mapping) -> None:
    for rate, colour in colours.items():
        looks = [point for point in points if point["learning_rate"] == rate]
        if not looks:
            continue
        steps = [look["forget_steps"] for look in looks]
        left = [look["selection"][FORGET[0]][FORGET[1]]["value"] for look in looks]
        axes.plot(steps, left, ".-", color=colour, linewidth=1, markersize=5, alpha=0.85)
        end = steps[-1], kept(looks[-1]["selection"])
        axes.plot(*end, "^", mfc="none", mec=colour, ms=6)
        if looks[-1]["chosen"]:
            axes.plot(*end, "o", mfc="none", zorder=5, **RING)


def differences(found: Comparison, ratio: int) -> Figure:
    """What MMUnlearner has over every other variant, a column for each kind of question.

    Thick bars are intervals by person, thin ones by seed; filled dots are called a difference.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    rivals = [row for row in found.rows[ratio] if row.rival]
    kinds = [kind for kind in found.kinds if any(kind in row.advantages for row in rivals)]
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(13, 0.32 * len(rivals) + 1.6), layout="constrained")
        panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=False):
            for y, row in enumerate(rivals):
                if it := row.advantages.get(kind):
                    _advantage(axes, y, it)
            axes.axvline(0, color=GREY, linewidth=1)
            axes.set_title(textwrap.fill(ASKED[kind].label, 17), loc="left", fontsize=9)
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}" if value else "0")
            axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=False))
            axes.tick_params(axis="x", labelsize=8)
            axes.axhline(sum(not row.control for row in rivals) - 0.5, color=GREY, linewidth=0.6)
        panels[0].set_yticks(range(len(rivals)), [row.label for row in rivals])
        panels[0].set_ylim(len(rivals) - 0.5, -0.5)
        figure.supxlabel(
            "← the other is better      points      MMUnlearner is better →", fontsize=10
        )
    return figure


def _advantage(axes: Axes, y: int, found: Estimate) -> None:
    word = verdict(found)
    colour = {"better": "#0072b2", "worse": "#d55e00", "tie": GREY}[word]
    for score, width, alpha in ((found.t, 0.9, 0.8), (found.people, 4, 0.4)):
        if score:
            axes.hlines(y, *score["ci95"], colors=colour, linewidth=width, alpha=alpha)
    axes.plot(found.value, y, "o", ms=5, mec=colour, mfc="white" if word == "tie" else colour)
