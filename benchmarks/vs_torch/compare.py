"""Agreement first, then rounds: the two sides take turns, and a ratio is that of neighbours."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.vs_torch.side import Side

Numbers = Mapping[str, Any]
Facts = dict[str, Any]
LOSS, SQUARES, MASK, ANSWERS = 1e-4, 1e-3, 0.999, 1.0


class Agreement(NamedTuple):
    """How near the two sides' numbers are to each other.

    Attributes:
        figures: what is reported.
        enough: whether that is agreement; what is not a number is none.
    """

    figures: dict[str, float]
    enough: bool


def losses(ours: Numbers, theirs: Numbers) -> Agreement:
    """Of every step's loss, the largest relative difference."""
    a, b = np.array(ours["losses"]), np.array(theirs["losses"])
    apart = float(np.max(np.abs(a - b) / np.abs(b))) if a.shape == b.shape else float("inf")
    return Agreement({"losses differ by": apart}, apart <= LOSS)


def squares(ours: Numbers, theirs: Numbers) -> Agreement:
    """Of both sets' squared gradients, and of the mask that follows from them.

    Weights that no gradient reaches on either side are in neither mask, and are not counted.
    """
    # Numpy's maximum, unlike Python's, is not a number where one is not.
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
    """Of the answers, how many are the same, as far as torch's go."""
    words = ([answer.split() for answer in side["answers"]] for side in (ours, theirs))
    pairs = list(zip(*words, strict=True))
    same = sum(bool(short) and long[: len(short)] == short for long, short in pairs) / len(pairs)
    return Agreement({"answers agree": same}, same >= ANSWERS)


def difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """The largest relative difference of any tensor, in norm; infinite if the names differ.

    Some gradients are nothing but rounding (a key's bias cannot change a softmax): tensors below
    1e-8 of the largest are held against that.
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
    """Does a work on both sides, sees that they agree, then times them in turns.

    Returns:
        Every side's seconds and what it says at the end, the agreement, and the ratios torch /
        ours, pair by pair.

    Raises:
        SystemExit: the sides disagree; no round has been timed.
    """
    begun = {"ours": ours.begin(name), "torch": theirs.begin(name)}
    found = WORKS[name](*(begun[side].pop("numbers") for side in ("ours", "torch")))
    if not found.enough:
        told = ", ".join(f"{what} {figure:.6g}" for what, figure in found.figures.items())
        sys.exit(f"error: {name}: ours and torch disagree ({told}): nothing was timed")
    seconds = in_turns(
        {"ours": lambda: ours.timed(name), "torch": lambda: theirs.timed(name)}, rounds
    )
    ended = {"ours": ours.end(name), "torch": theirs.end(name)}
    sides = {side: begun[side] | ended[side] | {"seconds": seconds[side]} for side in begun}
    ratios = [t / o for t, o in zip(seconds["torch"], seconds["ours"], strict=True)]
    return sides | {"agreement": found.figures, "ratios": ratios}


def alone(name: str, ours: Side, rounds: int) -> dict[str, Any]:
    """The same of our side alone."""
    begun = ours.begin(name)
    del begun["numbers"]
    seconds = [ours.timed(name) for _ in range(rounds)]
    return {"ours": begun | ours.end(name) | {"seconds": seconds}}


def example_over_batch(ours: Side, rounds: int) -> dict[str, Any]:
    """Squares of every example's gradient against those of the batch's, on unpacked batches."""
    names = ("example squares", "batch squares, unpacked")
    for name in names:
        ours.begin(name)
    seconds = in_turns({name: lambda name=name: ours.timed(name) for name in names}, rounds)
    for name in names:
        ours.end(name)
    example, batch = seconds.values()
    return {"seconds": seconds, "ratios": [e / b for e, b in zip(example, batch, strict=True)]}


def in_turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each call says, in every round."""
    said: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            said[name].append(call())
    return said
