"""The path of a run: after every forget step, how much is left to forget and how much is kept.

Runs are compared where they have forgotten as much. A path is read from its beginning, and between
two looks values are interpolated linearly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVELS = 21  # at which an area is measured, its two ends included


class Crossing(NamedTuple):
    """Where a path first reaches a level.

    Attributes:
        after: Index of the first look at or below the level.
        weight: Weight of this look, 0 to 1; the look before has the rest.
    """

    after: int
    weight: float

    def of(self, values: Sequence[float]) -> float:
        """Interpolates values that were measured at the looks."""
        if not self.after:
            return float(values[0])
        before, after = values[self.after - 1], values[self.after]
        return float((1 - self.weight) * before + self.weight * after)


def crossing(left: Sequence[float], level: float) -> Crossing | None:
    """Returns where a path first reaches a level; None where it stays above.

    Args:
        left: Accuracy about what is to be forgotten, at every look from the vanilla model on.
        level: Accuracy to reach.

    Raises:
        ValueError: An accuracy is not finite: a diverged model has not forgotten anything.
    """
    if not np.isfinite(left).all():
        raise ValueError("an accuracy of the path is not finite: the model diverged")
    for number, value in enumerate(left):
        if value > level:
            continue
        if not number:
            return Crossing(0, 1.0)
        return Crossing(number, float((left[number - 1] - level) / (left[number - 1] - value)))
    return None


def area(left: Sequence[float], kept: Sequence[float], top: float, bottom: float) -> float | None:
    """Returns the mean of what is kept while a run forgets from one level down to another.

    Args:
        left: As in `crossing`.
        kept: Accuracy about what is to be kept, at the same looks.
        top: Level at which it begins, the vanilla model's.
        bottom: Level at which it ends.

    Returns:
        0 to 1; None where no step reaches the bottom.
    """
    crossings = [crossing(left, level) for level in np.linspace(top, bottom, LEVELS)]
    if crossings[-1] is None or not crossings[-1].after:
        return None
    return float(np.mean([place.of(kept) for place in crossings if place]))
