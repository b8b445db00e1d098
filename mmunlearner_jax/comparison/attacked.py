"""What attacks on the models of a comparison came to, over its seeds."""

from collections.abc import Sequence
from typing import NamedTuple

from mmunlearner_jax.comparison.cells import Cell
from mmunlearner_jax.comparison.estimates import Estimate, estimate


class Attacked(NamedTuple):
    """One attack on one model.

    Attributes:
        recovered: Share that comes back (see `audit.recovery` and `audit.traces`), over the seeds
            in which something was forgotten.
        above_gold: How much more the model answers under attack than gold does, in these seeds;
            None without gold.
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
        # Where perhaps nothing was forgotten, the share is no number to average.
        made = {s: x for s, x in there.items() if "recovered" in x and not x.get("unclear")}
        recovered = estimate({seed: float(entry["recovered"]) for seed, entry in made.items()})
        if recovered is None:
            continue
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
