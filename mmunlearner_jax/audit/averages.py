"""Means over choices that an attacker makes at random."""

from collections.abc import Sequence

import numpy as np


def mean_of_trials(trials: Sequence[np.ndarray]) -> np.ndarray:
    """Returns each question's mean over the trials that ask it, float64 [Q].

    Args:
        trials: How right the answers are in each trial, float64 [Q]; NaN where it is not asked.
    """
    stacked = np.stack(trials)
    number = np.sum(~np.isnan(stacked), axis=0)
    total = np.nansum(stacked, axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
