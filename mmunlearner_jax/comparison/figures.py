"""The figures of a comparison, as SVG that is the same for the same numbers."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmunlearner_jax.comparison.cells import GOLD, OWN, VANILLA, Cell, label
from mmunlearner_jax.comparison.measures import Kind
from mmunlearner_jax.comparison.statistics import FORGET, KEPT, Estimate, verdict
from mmunlearner_jax.comparison.summary import Comparison, Row
from mmunlearner_jax.stages.report import ASKED, heat_maps

# Okabe and Ito's colours, told apart by the colour-blind; black is MMUnlearner.
STYLES = {
    OWN: ("#000000", "o"),
    "ga": ("#d55e00", "v"),
    "ga_diff": ("#e69f00", "^"),
    "kl_min": ("#cc79a7", "s"),
    "npo": ("#0072b2", "D"),
    "simnpo": ("#56b4e9", "P"),
    "idk_nll": ("#009e73", "X"),
}
GREY, RULE = "#767676", "#dddddd"
_LOOK = {
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
    with matplotlib.rc_context(_LOOK):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def trade_off(found: Comparison, ratio: int) -> Figure:
    """What is left of the faces against each thing to keep, a panel each.

    Methods have both 95 % intervals: thick by person, thin by seed. Controls are numbers.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    rows = [row for row in found.rows[ratio] if FORGET in row.accuracies]
    numbers = {row.name: str(n) for n, row in enumerate((r for r in rows if r.control), start=1)}
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(11, 9.4), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).flat
        for axes, kind in zip(panels, KEPT, strict=True):
            shown = [row for row in rows if kind in row.accuracies]
            _panel(axes, shown, kind, numbers)
            _front(
                axes, {row.name: row for row in shown}, found.front(ratio, kind), kind, found.chance
            )
            axes.axvline(found.chance, color=GREY, linestyle=":", linewidth=1)
            axes.set_title(ASKED[kind].label, loc="left")
        figure.supxlabel(f"{ASKED[FORGET].label}, % right (dotted: guessing)", fontsize=10)
        figure.supylabel("% right", fontsize=10)
        figure.legend(
            handles=_keys(rows, numbers),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=9,
        )
    return figure


def _panel(axes: Axes, rows: Sequence[Row], kind: Kind, numbers: Mapping[str, str]) -> None:
    low = min((row.accuracies[kind].value for row in rows), default=0.0)
    axes.set_xlim(0, 1.04)
    axes.set_ylim(max(0.0, low - 0.12 * (1.05 - low)), 1 + 0.05 * (1.05 - low))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}")
    placed = []
    for row in rows:
        x, y = row.accuracies[FORGET], row.accuracies[kind]
        if row.name in STYLES and not row.control:
            colour, marker = STYLES[row.name]
            _bars(axes, x, y, colour)
            axes.plot(x.value, y.value, marker, color=colour, markersize=8, mec="white", zorder=4)
        elif row.unlearned:
            axes.plot(x.value, y.value, ".", color=GREY, markersize=5, zorder=3)
            placed.append((row.name, x.value, y.value))
        else:
            axes.plot(
                x.value,
                y.value,
                "*" if row.name == GOLD else "o",
                ms=10,
                mfc="white",
                mec=GREY,
                zorder=3,
            )
    _place(axes, [(numbers.get(name, label(name)), x, y) for name, x, y in placed])


def _bars(axes: Axes, x: Estimate, y: Estimate, colour: str) -> None:
    for one, line in ((x, axes.hlines), (y, axes.vlines)):
        across = (y if one is x else x).value
        for score, width, alpha in ((one.t, 0.9, 0.75), (one.people, 3.5, 0.35)):
            if score:
                low, high = np.clip(score["ci95"], 0, 1)
                line(across, low, high, colors=colour, linewidth=width, alpha=alpha, zorder=2)


def _place(axes: Axes, labels: Sequence[tuple[str, float, float]]) -> None:
    """Writes labels beside their points, each at the place around its own that is freest."""
    scale = axes.transData.transform
    points = [np.asarray(scale((x, y))) for _, x, y in labels]
    taken = list(points)
    ring = [
        (r * np.cos(a), r * np.sin(a))
        for r in (11, 19, 27, 36)
        for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ]
    for (text, x, y), point in zip(labels, points, strict=True):
        free = [min(np.hypot(*(point + o - t)) for t in taken) for o in ring]
        best = next((n for n, space in enumerate(free) if space > 10), int(np.argmax(free)))
        taken.append(point + ring[best])
        far = np.hypot(*ring[best]) > 12
        axes.annotate(
            text,
            (x, y),
            ring[best],
            textcoords="offset pixels",
            fontsize=7.5,
            color="#444444",
            ha="center",
            va="center",
            zorder=5,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkB": 1} if far else None,
        )


def _front(
    axes: Axes, rows: Mapping[str, Row], front: Sequence[str], kind: Kind, chance: float
) -> None:
    points = [
        (max(chance, rows[n].accuracies[FORGET].value), rows[n].accuracies[kind].value)
        for n in front
    ]
    if points:
        # From the best that is kept, on to the right; below guessing nothing is gained.
        x, y = zip(*points, (1.04, points[-1][1]), strict=True)
        axes.step(x, y, where="post", color="#009e73", linewidth=1.2, alpha=0.7, zorder=1)


def _keys(rows: Sequence[Row], numbers: Mapping[str, str]) -> list[Line2D]:
    keys = []
    for row in rows:
        if row.name in STYLES and not row.control:
            colour, marker = STYLES[row.name]
            keys.append(_key(row.label, marker=marker, color=colour, ms=8))
        elif row.name in numbers:
            keys.append(_key(row.label, marker=f"${numbers[row.name]}$", color="#444444", ms=7))
        elif row.name in (VANILLA, GOLD):
            marker = "*" if row.name == GOLD else "o"
            keys.append(_key(row.label, marker=marker, mfc="white", mec=GREY, ms=10))
    keys.append(Line2D([], [], color="#009e73", linewidth=1.2, label="Pareto front"))
    return keys


def _key(text: str, **style) -> Line2D:
    return Line2D([], [], linestyle="", label=text, **style)


def grid_points(found: Comparison, ratio: int) -> Figure:
    """Every look at the questions set apart: what is left against what is kept, a panel a method.

    A line joins the looks of one learning rate in one seed; the chosen one is ringed.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    cells = found.at(ratio)
    methods = [r for r in found.rows[ratio] if r.unlearned and not r.control]
    rates = sorted({p["learning_rate"] for c in cells for m in methods for p in _looks(c, m.name)})
    colours = dict(
        zip(
            rates,
            matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1, len(rates) or 1)),
            strict=False,
        )
    )
    with matplotlib.rc_context(_LOOK):
        across = 4 if len(methods) > 3 else max(1, len(methods))
        down = max(1, -(-len(methods) // across))
        figure = Figure(figsize=(11, 3 * down + 0.8), layout="constrained")
        panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
        for axes, row in zip(panels, methods, strict=False):
            for cell in cells:
                _looks_of(axes, _looks(cell, row.name), colours)
            axes.set_title(row.label, loc="left")
            axes.axvline(found.chance, color=GREY, linestyle=":", linewidth=1)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        for axes in panels[len(methods) :]:
            axes.set_axis_off()
        figure.supxlabel(
            "Forgotten faces, questions set apart, % right (dotted: guessing)", fontsize=10
        )
        figure.supylabel("Mean of what is to be kept, % right", fontsize=10)
        keys = [Line2D([], [], color=c, marker=".", label=f"{r:g}") for r, c in colours.items()]
        ring = _key("chosen", marker="o", mfc="none", mec="#d55e00", ms=11, mew=1.6)
        figure.legend(
            handles=[*keys, ring],
            loc="outside lower center",
            ncols=8,
            frameon=False,
            fontsize=9,
            title="Learning rate",
        )
    return figure


def _looks(cell: Cell, name: str) -> Sequence[Mapping]:
    return cell.variants[name]["points"] if name in cell.variants else []


def _looks_of(axes: Axes, points: Sequence[Mapping], colours: Mapping) -> None:
    for rate, colour in colours.items():
        looks = sorted(
            (p for p in points if p["learning_rate"] == rate), key=lambda p: p["iteration"]
        )
        at = [_left_and_kept(look["selection"]) for look in looks]
        if at:
            axes.plot(
                *zip(*at, strict=True), ".-", color=colour, linewidth=1, markersize=5, alpha=0.85
            )
        for look, point in zip(looks, at, strict=True):
            if look["chosen"]:
                axes.plot(*point, "o", mfc="none", mec="#d55e00", ms=11, mew=1.6, zorder=5)


def _left_and_kept(selection: Mapping) -> tuple[float, float]:
    keep = [selection[s][m]["value"] for s, m in KEPT if m in selection.get(s, {})]
    return selection[FORGET[0]][FORGET[1]]["value"], float(np.mean(keep))


def differences(found: Comparison, ratio: int) -> Figure:
    """What MMUnlearner has over every other variant, a column for each kind of question.

    Thick bars are intervals by person, thin ones by seed; filled dots are called a difference.

    Args:
        found: the comparison.
        ratio: in percent.
    """
    rivals = [row for row in found.rows[ratio] if row.rival]
    kinds = [kind for kind in found.kinds if any(kind in row.advantages for row in rivals)]
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(13, 0.32 * len(rivals) + 1.6), layout="constrained")
        panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=False):
            for y, row in enumerate(rivals):
                if it := row.advantages.get(kind):
                    _advantage(axes, y, it)
            axes.axvline(0, color=GREY, linewidth=1)
            axes.set_title(ASKED[kind].label.replace(", ", ",\n"), loc="left", fontsize=9)
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}" if value else "0")
            axes.tick_params(axis="x", labelsize=8)
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
    with matplotlib.rc_context({**_LOOK, "axes.grid": False}):
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
