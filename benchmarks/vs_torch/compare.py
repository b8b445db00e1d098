"""Comparison of two sides: they must agree; then they take turns, which give a ratio each."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.vs_torch.side import Side

Numbers = Mapping[str, Any]
Facts = dict[str, Any]
LOSS, SQUARES, MASK, ANSWERS = 1e-4, 1e-3, 0.999, 1.0


class Agreement(NamedTuple):
    """How close the numbers of the two sides are.

    Attributes:
        figures: Figures for the report.
        enough: Whether the sides agree; they do not where a number is NaN.
    """

    figures: dict[str, float]
    enough: bool


def losses(ours: Numbers, theirs: Numbers) -> Agreement:
    """Compares the losses of all steps by the largest relative difference."""
    a, b = np.array(ours["losses"]), np.array(theirs["losses"])
    apart = float(np.max(np.abs(a - b) / np.abs(b))) if a.shape == b.shape else float("inf")
    return Agreement({"losses differ by": apart}, apart <= LOSS)


def squares(ours: Numbers, theirs: Numbers) -> Agreement:
    """Compares the squared gradients of both sets, and the masks that they give.

    Weights without a gradient on both sides are not counted.
    """
    # Numpy's maximum, unlike Python's, returns NaN if there is one.
    apart = float(np.max([difference(ours[name], theirs[name]) for name in ("forget", "preserve")]))
    same = count = 0
    for name in theirs["forget"]:
        a, b = ([side[of][name] for of in ("forget", "preserve")] for side in (ours, theirs))
        reached = np.any([*a, *b], axis=0)
        same += int(np.sum(((a[0] >= a[1]) == (b[0] >= b[1]))[reached]))
        count += int(np.sum(reached))
    agree = same / count
    figures = {"squares differ by": apart, "mask agrees": agree}
    return Agreement(figures, apart <= SQUARES and agree >= MASK)


def answers(ours: Numbers, theirs: Numbers) -> Agreement:
    """Compares the words of the answers, up to the end of torch's answer."""
    words = ([answer.split() for answer in side["answers"]] for side in (ours, theirs))
    pairs = list(zip(*words, strict=True))
    same = sum(bool(short) and long[: len(short)] == short for long, short in pairs) / len(pairs)
    return Agreement({"answers agree": same}, same >= ANSWERS)


def difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """Returns the largest relative difference of any tensor, in norm; inf if the names differ.

    Some gradients are rounding errors only (a key's bias cannot change a softmax). So a difference
    is divided by at least 1e-8 of the largest norm.
    """
    if ours.keys() != theirs.keys():
        return float("inf")
    names = list(theirs)
    norms = np.array([np.linalg.norm(theirs[k]) for k in names])
    gaps = np.array([np.linalg.norm(ours[k] - theirs[k]) for k in names])
    return float(np.max(gaps / np.maximum(norms, 1e-8 * norms.max())))


WORKS: dict[str, Callable[[Numbers, Numbers], Agreement]] = {
    "importance": squares,
    "unlearn": losses,
    "finetune": losses,
    "evaluate": answers,
}


def compare(name: str, ours: Side, theirs: Side, rounds: int) -> dict[str, Any]:
    """Does a work on both sides, checks that they agree, and times them in turns.

    Returns:
        The figures and seconds of each side, the agreement, and the ratios torch / ours, pair by
        pair.

    Raises:
        SystemExit: The sides disagree; no round has been timed.
    """
    begun = {"ours": ours.begin(name), "torch": theirs.begin(name)}
    agreement = WORKS[name](*(begun[side].pop("numbers") for side in ("ours", "torch")))
    if not agreement.enough:
        figures = ", ".join(f"{what} {figure:.6g}" for what, figure in agreement.figures.items())
        sys.exit(f"error: {name}: ours and torch disagree ({figures}): nothing was timed")
    seconds = in_turns(
        {"ours": lambda: ours.timed(name), "torch": lambda: theirs.timed(name)}, rounds
    )
    ended = {"ours": ours.end(name), "torch": theirs.end(name)}
    sides = {side: begun[side] | ended[side] | {"seconds": seconds[side]} for side in begun}
    ratios = [t / o for t, o in zip(seconds["torch"], seconds["ours"], strict=True)]
    return sides | {"agreement": agreement.figures, "ratios": ratios}


def alone(name: str, ours: Side, rounds: int) -> dict[str, Any]:
    """Does and times a work on our side alone."""
    begun = ours.begin(name)
    del begun["numbers"]
    seconds = [ours.timed(name) for _ in range(rounds)]
    return {"ours": begun | ours.end(name) | {"seconds": seconds}}


def example_over_batch(ours: Side, rounds: int) -> dict[str, Any]:
    """Times example squares against batch squares, and against those of packed rows.

    Returns:
        The seconds of each, for the questions about one picture; `ratios`: example squares / batch
        squares, both of unpacked rows; `packing`: example squares of unpacked / of packed rows.
    """
    names = ("example squares", "batch squares, unpacked", "example squares, packed")
    for name in names:
        ours.begin(name)
    seconds = in_turns({name: lambda name=name: ours.timed(name) for name in names}, rounds)
    for name in names:
        ours.end(name)
    example, batch, packed = seconds.values()
    return {
        "seconds": seconds,
        "ratios": [e / b for e, b in zip(example, batch, strict=True)],
        "packing": [e / p for e, p in zip(example, packed, strict=True)],
    }


def in_turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Does the calls in turns; returns the results of each call, one for each round."""
    results: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            results[name].append(call())
    return results
