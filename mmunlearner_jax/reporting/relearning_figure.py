"""The figure of a comparison that shows what is kept against what relearning brings back."""

import itertools
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mmunlearner_jax.comparison.estimates import Estimate
from mmunlearner_jax.comparison.findings import Comparison, VariantResult
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend
from mmunlearner_jax.unlearn.methods import METHODS

_MARKERS = "sDv^<>pPX*hd"
_ACROSS = 2


def relearning(comparison: Comparison, ratio: int) -> Figure | None:
    """Draws each last model, a panel for each main kind that is to stay.

    To the right, a model answers more than gold after the first number of relearning steps, about
    the last kind that is asked then (photographs that were not taught). Up is what it keeps. Bars
    are Student's 95 % intervals over seeds.

    Args:
        comparison: The comparison.
        ratio: Forget ratio in percent.

    Returns:
        The figure; None where nothing was relearned beside gold.
    """
    if not comparison.returning:
        return None
    first = comparison.relearned_levels[0]
    steps, _, asked = [place for place in comparison.returning if place[1] == first][-1]
    rows = [
        (row, back)
        for row in comparison.rows[ratio]
        if not row.reference and (back := row.above_gold[first].get(asked))
    ]
    kinds = [kind for kind in comparison.main_kinds if not comparison.about[kind].falls]
    if not rows or not kinds:
        return None
    with matplotlib.rc_context(LOOK):
        down = -(-len(kinds) // _ACROSS)
        figure = Figure(figsize=(9, 3 * down + 1.4), layout="constrained")
        panels = list(figure.subplots(down, _ACROSS, squeeze=False).flat)
        looks = _looks([row for row, _ in rows])
        for axes, kind in zip(panels, kinds, strict=False):
            axes.set_title(comparison.about[kind].label, loc="left")
            axes.axvline(0, color=GREY, linewidth=1)
            for row, back in rows:
                if kept := row.accuracies["end"].get(kind):
                    bars = {"xerr": _half(back), "yerr": _half(kept)}
                    place = (100 * back.value, 100 * kept.value)
                    axes.errorbar(
                        *place, **bars, ls="", capsize=2, elinewidth=0.7, **looks[row.name]
                    )
        for axes in panels[len(kinds) :]:
            axes.set_axis_off()
        for axes in panels[::_ACROSS]:
            axes.set_ylabel("kept, % right")
        for axes in panels[: len(kinds)][-_ACROSS:]:
            axes.set_xlabel(f"right after {steps} relearning steps, points above gold")
        legend(figure, [key(row.label, **looks[row.name]) for row, _ in rows], ncols=2)
    return figure


def _looks(rows: list[VariantResult]) -> dict[str, dict[str, Any]]:
    """Returns colour and marker of each variant; controls are grey."""
    markers = itertools.cycle(_MARKERS)
    return {
        row.name: {"color": METHODS[row.name].color, "marker": METHODS[row.name].marker}
        if row.name in METHODS
        else {"color": GREY, "marker": next(markers), "markerfacecolor": "none"}
        for row in rows
    }


def _half(estimate: Estimate) -> float:
    return 100 * (estimate.half or 0.0)
