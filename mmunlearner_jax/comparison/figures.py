"""The figures of a comparison, as SVG that is the same for the same numbers."""

import base64
import io
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
from mmunlearner_jax.comparison.statistics import FORGET, Estimate, verdict
from mmunlearner_jax.comparison.summary import Comparison
from mmunlearner_jax.evaluation.selection import kept
from mmunlearner_jax.stages.report import ASKED, heat_maps

GREY, RULE = "#767676", "#dddddd"
RING: dict[str, Any] = {"mec": "#d55e00", "ms": 11, "mew": 1.6}
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "mmunlearner_jax",  # ids are drawn from it
    "svg.fonttype": "path",  # the same letters everywhere
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG element, without date."""
    buffer = io.StringIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def data_uri(figure: Figure) -> str:
    """A figure as a data URI: inlined, figures would share their ids."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()


def key(text: str, **style: Any) -> Line2D:
    """An entry of a legend that is a marker."""
    return Line2D([], [], linestyle="", label=text, **style)


def legend(figure: Figure, handles: Sequence[Line2D], *, ncols: int, **options: Any) -> None:
    """A legend without a frame, below all panels."""
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 9}
    figure.legend(handles=handles, ncols=ncols, **place, **options)


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


def densities(by_block: Mapping[str, float]) -> Figure:
    """Where the mask is open: a heat map for each part of the model, matrices by layers.

    Args:
        by_block: density by Hugging Face parameter name, one block at least that is open.
    """
    maps = heat_maps(by_block)
    heights = [len(matrices) for matrices in maps.values()]
    with matplotlib.rc_context({**LOOK, "axes.grid": False}):
        figure = Figure(figsize=(7, 0.34 * sum(heights) + 0.75 * len(maps)), layout="constrained")
        panels = figure.subplots(len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (part, matrices) in zip(panels, maps.items(), strict=True):
            layers = list(next(iter(matrices.values())))
            values = np.array(
                [[cells.get(x, np.nan) for x in layers] for cells in matrices.values()]
            )
            axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (y, x), value in np.ndenumerate(values):
                ink = "white" if value > 0.6 else "black"
                axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color=ink, size=8.5)
            axes.set_yticks(range(len(matrices)), list(matrices), fontsize=8.5)
            axes.set_xticks(
                range(len(layers)), ["" if x == "." else f"layer {x}" for x in layers], fontsize=8.5
            )
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(part or "other", loc="left")
    return figure
