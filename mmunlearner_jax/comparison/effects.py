"""Differences between two variants: a mixed model over seeds and people, Holm's rule, equivalence.

Accuracies of one seed share a model, and accuracies about one person share photographs. Both are
random effects: an interval says what further seeds and further people would give.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

# With two people a resample has three outcomes: nothing is said about further people.
FEWEST_PEOPLE = 3
POWER = 0.8

Differences = Mapping[tuple[int, str], float]  # by seed and person


@dataclasses.dataclass(frozen=True)
class Effect:
    """A mean difference of accuracies.

    Attributes:
        value: The mean, -1 to 1.
        seeds: Mean of each seed, by seed.
        people: Number of people who are a random effect; 0: the interval is over seeds alone.
        error: Standard error; None with one seed.
    """

    value: float
    seeds: Mapping[int, float]
    people: int
    error: float | None

    @property
    def freedom(self) -> int:
        """Degrees of freedom: one less than seeds, or than people where these are fewer."""
        return min(len(self.seeds), self.people or len(self.seeds)) - 1

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Returns a confidence interval by Student's t."""
        if self.error is None:
            return None
        half = self.error * float(scipy.stats.t.ppf(0.5 + level / 2, self.freedom))
        return self.value - half, self.value + half

    @property
    def p(self) -> float | None:
        """Two-sided p-value of no difference; None where seeds and people do not vary."""
        if not self.error:
            return None
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))

    def same(self, margin: float) -> bool:
        """Whether two one-sided tests at 5 % exclude a difference of the margin or more."""
        inside = self.interval(0.9)
        return inside is not None and -margin < inside[0] and inside[1] < margin

    @property
    def detectable(self) -> float | None:
        """Smallest difference that as many seeds and people find with a power of 80 % at 5 %."""
        number = self.freedom + 1
        if self.error is None or number < 3:
            return None
        size = TTestPower().solve_power(nobs=number, alpha=0.05, power=POWER)
        return float(size * self.error * np.sqrt(number))


def effect(differences: Differences) -> Effect | None:
    """Estimates a mean difference; None without any.

    Args:
        differences: Accuracy of the first variant minus that of the second, by seed and person.
    """
    if not differences:
        return None
    index = pd.MultiIndex.from_tuples(list(differences), names=["seed", "person"])
    table = pd.Series(list(differences.values()), index, name="difference").reset_index()
    seeds = table.groupby("seed")["difference"].mean()
    people = table["person"].nunique()
    by_seed = {int(str(seed)): float(value) for seed, value in seeds.items()}
    value = float(seeds.mean())
    if len(seeds) < 2:
        return Effect(value, by_seed, 0, None)
    error = float(scipy.stats.sem(seeds))
    if people < FEWEST_PEOPLE or people == len(table) or np.ptp(table["difference"]) == 0:
        return Effect(value, by_seed, 0, error)
    mixed = _mixed(table)
    if mixed is None:
        return Effect(value, by_seed, 0, error)
    # Random effects that are estimated as nothing leave an interval that is too narrow.
    return Effect(mixed[0], by_seed, people, max(error, mixed[1]))


def _mixed(table: pd.DataFrame) -> tuple[float, float] | None:
    """Returns the mean and its standard error, with seeds and people as crossed random effects.

    None where the model cannot be fitted: its Hessian is singular or not negative.
    """
    effects = {"seed": "0 + C(seed)", "person": "0 + C(person)"}
    model = MixedLM.from_formula(
        "difference ~ 1", table, groups=np.ones(len(table)), vc_formula=effects
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 lies at the boundary, and is usual
        try:
            fitted = model.fit(reml=True)
            mean, error = float(fitted.fe_params.iloc[0]), float(fitted.bse_fe.iloc[0])
        except np.linalg.LinAlgError:
            return None
    return (mean, error) if np.isfinite([mean, error]).all() else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values by Holm's rule; None stands for a test that could not be made."""
    there = [p for p in p_values if p is not None]
    if not there:
        return list(p_values)
    adjusted = iter(multipletests(there, method="holm")[1].tolist())
    return [None if p is None else next(adjusted) for p in p_values]
