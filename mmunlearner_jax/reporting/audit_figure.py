"""The figures of an audit: the share that each attack brings back, and relearning step by step."""

import re
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mmunlearner_jax.audit.attack import AFTER, BEFORE, GOLD
from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.reporting.figures import GREY, LOOK, key, legend

_OURS, _GOLD = "#0072b2", "#a6761d"
_LINES = {BEFORE: ("before", GREY), AFTER: ("unlearned", _OURS), GOLD: ("gold", _GOLD)}
_TRIAL = re.compile(r"(\d+) steps at (\S+)")


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


def relearning(result: Mapping[str, Any]) -> Figure | None:
    """Draws how right models are after steps of relearning.

    The learning rate is the one that brings most back to the unlearned model.

    Args:
        result: Entry of `audit.json` of an attack whose trials are called "N steps at RATE".

    Returns:
        The figure; None where trials have other names.
    """
    found = [_TRIAL.fullmatch(name) for name in result[AFTER]["trials"]]
    if not all(found):
        return None
    # Of the rates, the one at which the unlearned model is best on average.
    means: dict[str, list[float]] = {}
    for trial, right in zip(found, result[AFTER]["trials"].values(), strict=True):
        if trial:
            means.setdefault(trial[2], []).append(right)
    rate = max(means, key=lambda rate: sum(means[rate]) / len(means[rate]))
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        for model, (label, colour) in _LINES.items():
            if not result.get(model):
                continue
            trials = ((_TRIAL.fullmatch(n), x) for n, x in result[model]["trials"].items())
            curve = {int(trial[1]): x for trial, x in trials if trial and trial[2] == rate}
            steps = [0, *sorted(curve)]
            values = [100 * x for x in (result[model]["clean"], *(curve[n] for n in steps[1:]))]
            axes.plot(steps, values, "o-", color=colour, label=label, ms=4)
        axes.set_ylim(0, 104)
        axes.set_xlabel(f"fine-tuning steps at {rate}")
        axes.set_ylabel("% right about other photographs")
        axes.legend(frameon=False, fontsize=9)
    return figure
