"""The figure of an audit: the share that each attack brings back."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend

_OURS, _GOLD = "#0072b2", "#a6761d"


def recovered(attacks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws the recovered share of each attack with its interval, beside gold's.

    Args:
        attacks: Entries of `audit.json` that have a share, by name; at least one.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.4, 0.42 * len(attacks) + 1.3), layout="constrained")
        axes = figure.subplots()
        for place, result in enumerate(attacks.values()):
            if result["ci95"]:
                axes.plot([100 * x for x in result["ci95"]], [place, place], color=_OURS, lw=2)
            axes.plot(100 * result["recovered"], place, "o", color=_OURS, ms=7)
            if "recovered_gold" in result:
                gold = {"mfc": "white", "color": _GOLD, "ms": 7}
                axes.plot(100 * result["recovered_gold"], place + 0.18, "D", **gold)
        for share in (0, 100):
            axes.axvline(share, color=GREY, lw=1, ls=(0, (4, 3)))
        axes.set_yticks(range(len(attacks)), [ATTACKS[name].label for name in attacks])
        axes.set_ylim(len(attacks) - 0.5, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("comes back, % of what was forgotten")
        handles = [key("unlearned, 95 % interval over people", marker="o", color=_OURS)]
        if any("recovered_gold" in result for result in attacks.values()):
            handles.append(key("gold: never learned", marker="D", color=_GOLD, mfc="white"))
        legend(figure, handles, ncols=2)
    return figure
