"""What attacks on the models of a comparison came to, over its seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.comparison.estimates import Estimate, estimate


class Attacked(NamedTuple):
    """One attack on one model.

    Attributes:
        recovered: Share that comes back: what came back in all seeds, of what was lost in all.
        above_gold: How much more the model answers under attack than gold does, mean over the
            seeds; None without gold.
        verdicts: Number of seeds by verdict.
    """

    recovered: Estimate
    above_gold: Estimate | None
    verdicts: dict[str, int]


def attacked(cells: Sequence[Cell], name: str) -> dict[str, Attacked]:
    """Returns what each attack on a model came to; none where it was not audited.

    Args:
        cells: Cells of one forget ratio.
        name: Name of the model.
    """
    entries = {cell.seed: cell.audits[name]["attacks"] for cell in cells if name in cell.audits}
    results = {}
    for attack in dict.fromkeys(key for of_seed in entries.values() for key in of_seed):
        there = {seed: of[attack] for seed, of in entries.items() if attack in of}
        made = {seed: entry for seed, entry in there.items() if "recovered" in entry}
        parts = {s: (float(x["back"]), float(x["lost"]["value"])) for s, x in made.items()}
        if not made:
            continue
        # Where nothing was lost, everything is there by definition.
        recovered = quotient(parts) or Estimate(1.0, {}, None)
        above = {
            seed: float(entry["above_gold"]["value"])
            for seed, entry in made.items()
            if "above_gold" in entry
        }
        verdicts: dict[str, int] = {}
        for entry in there.values():
            verdicts[entry["verdict"]] = verdicts.get(entry["verdict"], 0) + 1
        results[attack] = Attacked(recovered, estimate(above), verdicts)
    return results


def quotient(parts: dict[int, tuple[float, float]]) -> Estimate | None:
    """Returns the quotient of two sums over seeds, with Student's interval by the jackknife.

    A mean of quotients would hang on a seed with a small denominator.

    Args:
        parts: Numerator and denominator by seed.

    Returns:
        The estimate, whose `seeds` are the quotients; None without seeds, or if the denominators'
        sum is not above 0.
    """
    table = np.array([*parts.values()]).reshape(-1, 2)
    back, lost = table.sum(axis=0)
    if not lost > 0:
        return None
    seeds = {seed: x / y for seed, (x, y) in parts.items() if y > 0}
    without = [(back - x, lost - y) for x, y in table]
    half = None
    if len(table) > 1 and all(y > 0 for _, y in without):
        left_out = [x / y for x, y in without]
        error = np.sqrt((len(table) - 1) * np.var(left_out))
        half = float(scipy.stats.t.ppf(0.975, len(table) - 1) * error)
    return Estimate(float(back / lost), seeds, half)
