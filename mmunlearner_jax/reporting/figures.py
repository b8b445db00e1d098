"""SVG figures of the pages of runs and comparisons; equal numbers give equal files."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

GREY, RULE, INK = "#767676", "#dddddd", "#1c1c1e"
FORGET, RETAIN = "#ad4a22", "#17695d"
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "mmunlearner_jax",  # seed of the elements' ids
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
    """Returns a figure as the text of an SVG element, without a date."""
    buffer = io.StringIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


# Colours of figures that a page replaces by its own, so that they suit dark mode and print.
_OF_PAGE = {
    "#000000": "currentColor",
    INK: "currentColor",
    RULE: "var(--rule)",
    "#ffffff": "var(--card)",
    FORGET: "var(--falls)",
    RETAIN: "var(--stays)",
}


def inline(figure: Figure | None, name: str) -> str:
    """Returns a figure as an SVG element of a page, in the page's colours; "" where there is none.

    What it shows in words stands around it.

    Args:
        figure: The figure.
        name: Beginning of its ids, which must differ between the figures of a page.
    """
    if figure is None:
        return ""
    text = svg(figure)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    for colour, own in _OF_PAGE.items():
        text = text.replace(f": {colour}", f": {own}")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1).replace("*{", ".figure svg *{")


def key(text: str, **style: Any) -> Line2D:
    """Returns a legend entry that is a marker."""
    return Line2D([], [], linestyle="", label=text, **style)


def legend(figure: Figure, handles: Sequence[Line2D], *, ncols: int, **options: Any) -> None:
    """Adds a legend without a frame below all panels."""
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 9}
    figure.legend(handles=handles, ncols=ncols, **place, **options)


_CURVES = ((FORGET, "-"), (RETAIN, "--"))  # told apart without colours, too
_MOST_POINTS = 240


def draw_lines(
    axes: Axes,
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = False,
) -> None:
    """Draws curves over steps, with the last value of each in the legend.

    Args:
        axes: Axes to draw on.
        title: Title of the chart.
        series: (step, value) pairs by label; values are finite, and positive if `log`.
        log: Whether the y axis is logarithmic.
    """
    looks = _CURVES if len(series) > 1 else ((INK, "-"),)
    highest, lowest = 0.0, np.inf
    for (label, pairs), (colour, dashes) in zip(series.items(), looks, strict=True):
        steps, values = _thin(np.asarray(pairs, np.float64)).T
        name = re.sub(r"\W+", "-", f"curve {title} {label}")
        shown = f"{label} {_short(values[-1])}"
        axes.plot(steps, values, label=shown, color=colour, linestyle=dashes, gid=name)
        highest, lowest = max(highest, values.max()), min(lowest, values.min())
    axes.set_title(title, loc="left")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if log:  # whole decades
        low, high = np.floor(np.log10([lowest, 0.999 * highest]))
        axes.set_yscale("log")
        axes.set_ylim(10.0**low, 10.0 ** (high + 1))
    else:
        axes.set_ylim(0, 1.05 * highest or 1)
    axes.legend(frameon=False, fontsize=9)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line_chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, log: bool = False
) -> Figure:
    """Returns a figure with one chart of `draw_lines`."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        draw_lines(figure.subplots(), title, series, log=log)
    return figure


def _thin(curve: np.ndarray) -> np.ndarray:
    """Averages neighbours until at most `_MOST_POINTS` points are left; [N, 2] -> [n, 2]."""
    parts = np.array_split(curve, min(len(curve), _MOST_POINTS))
    return np.stack([part.mean(0) for part in parts])


def heat_maps(by_block: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """Groups mask densities by part of the model, matrix and layer.

    Args:
        by_block: Density (0 to 1) by Hugging Face parameter name.

    Returns:
        `{part: {matrix: {layer: density}}}`. Matrices with density 0 in every layer are left out.
        A matrix outside the layers has the single layer ".".
    """
    maps: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in by_block.items():
        path = name.removeprefix("model.").removesuffix(".weight")
        layered = re.fullmatch(r"(.+?)(?:\.encoder)?\.layers\.(\d+)\.(.+)", path)
        part, layer, matrix = layered.groups() if layered else path.rpartition(".")
        maps.setdefault(part, {}).setdefault(matrix, {})[layer] = value
    for part, matrices in maps.items():
        maps[part] = {name: cells for name, cells in matrices.items() if any(cells.values())}
    return {part: matrices for part, matrices in maps.items() if matrices}


def densities(by_block: Mapping[str, float]) -> Figure:
    """Draws the mask's densities: a heat map (matrices by layers) for each part of the model.

    Args:
        by_block: Density (0 to 1) by Hugging Face parameter name; at least one is above 0.
    """
    maps = heat_maps(by_block)
    heights = [len(matrices) for matrices in maps.values()]
    with matplotlib.rc_context({**LOOK, "axes.grid": False}):
        width = max(7.0, 2.2 + 0.4 * max(len(c) for m in maps.values() for c in m.values()))
        figure = Figure(
            figsize=(width, 0.34 * sum(heights) + 0.75 * len(maps)), layout="constrained"
        )
        panels = figure.subplots(len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (part, matrices) in zip(panels, maps.items(), strict=True):
            layers = list(next(iter(matrices.values())))
            values = np.array(
                [[cells.get(x, np.nan) for x in layers] for cells in matrices.values()]
            )
            axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (y, x), value in np.ndenumerate(values):
                ink = "#fefefe" if value > 0.6 else "#010101"  # the same in dark mode
                axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color=ink, size=8.5)
            axes.set_yticks(range(len(matrices)), list(matrices), fontsize=8.5)
            axes.set_xticks(
                range(len(layers)), ["" if x == "." else f"layer {x}" for x in layers], fontsize=8.5
            )
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(part or "other", loc="left")
    return figure
