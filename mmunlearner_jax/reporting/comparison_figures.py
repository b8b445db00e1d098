"""The figures of a comparison."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.comparison.examiner import FORGET_KIND
from mmunlearner_jax.comparison.findings import Comparison, Finding, VariantResult
from mmunlearner_jax.comparison.paths import crossing
from mmunlearner_jax.comparison.runs import FORGOTTEN
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend
from mmunlearner_jax.unlearn.methods import METHODS

# Okabe and Ito's colours, told apart by the colour-blind.
_CONTROLS = ("#000000", "#999999", "#a6761d", "#66a61e", "#7570b3")
_HOLLOW = "sDv^<>pP"
# Markers tell curves apart without colours; a curve has a few of them.
_LINE: dict[str, Any] = {"linewidth": 1.6, "markersize": 5, "markevery": (2, 6)}
_DASHES = (0, (3, 1.5))
_SHARES = {"own": "#d55e00", "other_people_mask": "#0072b2", "random_mask": GREY}
_MARKERS = "DsovP^X<>p"
RELEARN = "relearn_same"
_WAY = np.linspace(0, 1, 21)  # from the vanilla model's level to that at which runs end


def paths(comparison: Comparison, ratio: int) -> Figure:
    """Draws what is kept against how much is forgotten, a panel for each kind that is to stay.

    A curve is a mean over the runs that got to its end, on questions set apart. It ends where half
    of the runs got. Methods are solid, the controls of named contrasts dashed.

    Args:
        comparison: The comparison.
        ratio: Forget ratio in percent.
    """
    cells, styles = comparison.at(ratio), _styles(comparison)
    to_stay = [kind for kind in comparison.kinds if not comparison.about[kind].falls]
    kinds = [kind for kind in to_stay if _varies(cells, kind, styles)]
    with matplotlib.rc_context(LOOK):
        across = min(3, len(kinds)) or 1
        down = -(-len(kinds) // across) or 1
        figure = Figure(figsize=(11 * across / 3, 3.3 * down + 1), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, kind in zip(panels, kinds, strict=False):
            for name, style in styles.items():
                _curve(axes, cells, name, kind, style)
            axes.set_title(comparison.about[kind].label, loc="left")
            end = comparison.options.forgotten
            axes.set_xticks([0, 0.5 / end, 1], ["0", "50", f"{100 * end:.0f}"])
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2))
        for axes in panels[len(kinds) :]:
            axes.set_axis_off()
        for axes in panels[::across]:
            axes.set_ylabel("% right")
        for axes in panels[max(0, len(kinds) - across) : len(kinds)]:  # no panel is below them
            axes.set_xlabel("forgotten, % of what gold lacks")
        keys = [Line2D([], [], label=comparison.label(n), **s) for n, s in styles.items()]
        legend(figure, keys, ncols=4)
    return figure


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Returns how variants are drawn: all methods, and the controls of named contrasts."""
    present = {row.name for rows in comparison.rows.values() for row in rows}
    styles: dict[str, dict[str, Any]] = {
        name: {"color": method.color, "marker": method.marker, **_LINE}
        for name, method in METHODS.items()
        if name in present
    }
    named = [n for c in comparison.options.contrasts for n in (c.first, c.second)]
    controls = [n for n in dict.fromkeys(named) if n in present and n not in METHODS]
    looks = zip(controls, itertools.cycle(_CONTROLS), itertools.cycle(_HOLLOW), strict=False)
    for name, colour, marker in looks:
        hollow = {"markerfacecolor": "none", "linestyle": _DASHES}
        styles[name] = {"color": colour, "marker": marker, **_LINE, **hollow}
    return styles


def _path(cell: Cell, name: str, kind: str) -> tuple[list[float], list[float]]:
    """Returns what is left and what is kept of one kind along a run; empty where it was not run."""
    looks = [
        look["accuracies"]
        for look in cell.variants.get(name, {}).get("path", ())
        if kind in look["accuracies"]
    ]
    return [look[FORGET_KIND] for look in looks], [look[kind] for look in looks]


def _varies(cells: Sequence[Cell], kind: str, names: Iterable[str]) -> bool:
    """Whether any of the named runs changed a kind; a panel of ceilings shows nothing."""
    return any(np.ptp(_path(c, name, kind)[1] or [0.0]) > 0 for c in cells for name in names)


def _curve(axes: Axes, cells: Sequence[Cell], name: str, kind: str, style: dict[str, Any]) -> None:
    """Draws the mean over the runs that got to the end of the curve, where half of them got."""
    values = []
    for cell in cells:
        left, kept = _path(cell, name, kind)
        if len(left) < 2:
            continue
        levels = left[0] + _WAY * (cell.results["levels"][FORGOTTEN] - left[0])
        places = [crossing(left, level) for level in levels]
        values.append([place.of(kept) if place else np.nan for place in places])
    if not values:
        return
    table = np.array(values)
    end = int(np.sum(np.isfinite(table).mean(axis=0) >= 0.5))  # a run that gets far was near, too
    through = table[np.isfinite(table[:, end - 1]), :end]
    axes.plot(_WAY[:end], 100 * through.mean(axis=0), **style)


def shares(comparison: Comparison, ratio: int) -> Figure | None:
    """Draws how much of the forget set's squared gradients each mask holds, along the run.

    Args:
        comparison: The comparison.
        ratio: Forget ratio in percent.

    Returns:
        The figure; None where nothing was measured.
    """
    own = comparison.cells[0].config["unlearn"]["method"]
    points: dict[str, dict[int, list[float]]] = {}
    for cell in comparison.at(ratio):
        for look in cell.variants.get(own, {}).get("path", ()):
            for mask, share in look.get("shares", {}).items():
                points.setdefault(mask, {}).setdefault(look["forget_steps"], []).append(share)
    if not points:
        return None
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for mask, by_step in points.items():
            steps, colour = sorted(by_step), _SHARES.get(mask, GREY)
            means = [float(np.mean(by_step[step])) for step in steps]
            label = comparison.label(own if mask == "own" else mask)
            axes.plot(steps, means, ".-", color=colour, label=label)
            ends = [(min(by_step[step]), max(by_step[step])) for step in steps]
            axes.fill_between(steps, *np.transpose(ends), color=colour, alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1)
        axes.set_xlabel("forget steps")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set_ylabel("% of squared gradients")
        axes.legend(frameon=False, fontsize=9)
    return figure


def returning(comparison: Comparison, ratio: int) -> Figure | None:
    """Draws what a model keeps against what comes back when it relearns one photograph a person.

    Args:
        comparison: The comparison.
        ratio: Forget ratio in percent.

    Returns:
        The figure; None where no model was attacked so.
    """
    shown = [
        (row, attack.recovered, kept)
        for row in comparison.audited(ratio)
        if (attack := row.attacked.get(RELEARN)) and (kept := _kept(comparison, row))
    ]
    if not shown:
        return None
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axes = figure.subplots()
        handles = []
        for (row, back, kept), marker in zip(shown, itertools.cycle(_MARKERS), strict=False):
            method = METHODS.get(row.name)
            look: dict[str, Any] = {"color": method.color if method else GREY, "marker": marker}
            half = 100 * (back.half or 0)
            axes.errorbar(100 * back.value, 100 * kept, xerr=half, ls="", capsize=2, **look)
            handles.append(key(row.label, **look))
        legend(figure, handles, ncols=2)
        axes.set_xlabel("comes back by relearning one photograph a person, % of what was forgotten")
        axes.set_ylabel("kept, % right")
    return figure


def _kept(comparison: Comparison, row: VariantResult) -> float | None:
    """Returns a last model's mean accuracy over the main kinds that are to stay."""
    kinds = [kind for kind in comparison.main_kinds if not comparison.about[kind].falls]
    values = [row.accuracies["end"][kind].value for kind in kinds if kind in row.accuracies["end"]]
    return float(np.mean(values)) if values else None


def contrasts(findings: Sequence[Finding]) -> Figure:
    """Draws the contrasts that were named beforehand with their 95 % intervals.

    Args:
        findings: The contrasts of one forget ratio.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 0.5 * len(findings) + 1), layout="constrained")
        axes = figure.subplots()
        for y, finding in enumerate(findings):
            if not finding.effect:
                continue
            first = finding.role == "primary"
            colour = "#d55e00" if first else "#0072b2"
            if interval := finding.effect.interval():
                axes.hlines(y, *interval, colors=colour, linewidth=3 if first else 1.5)
            axes.plot(finding.effect.value, y, "o", color=colour, ms=7 if first else 5)
        titles = [textwrap.fill(finding.title, 60) for finding in findings]
        axes.set_yticks(range(len(findings)), titles, fontsize=8)
        axes.set_ylim(len(findings) - 0.5, -0.5)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}" if value else "0")
        axes.set_xlabel("points; above 0 the first does better")
    return figure
