"""How long the stages of a run take: from the rooflines to the utilisation measured on a GPU."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmunlearner_jax.planning.estimate import Estimate
from mmunlearner_jax.planning.topologies import Slice

# Model-FLOP utilisation of LLaVA-1.5-7B on one H100 with XLA's attention: the lowest of a stage's
# programs (benchmarks/results/h100-7b-*-xla.json). No evaluation was measured there.
MEASURED: Mapping[str, float] = {"importance": 0.358, "unlearn": 0.303}


class Duration(NamedTuple):
    """Seconds of all calls of some programs.

    Attributes:
        least: At the rooflines.
        most: At the utilisation of `MEASURED`, where that is slower than the roofline.
    """

    least: float
    most: float


def durations(estimates: Sequence[Estimate], target: Slice) -> dict[str, Duration]:
    """Returns the duration of each stage, by name.

    Args:
        estimates: Estimates of the stages' programs.
        target: The slice that they were made for.
    """
    peak = len(target.devices) * target.chip.flops

    def most(e: Estimate) -> float:
        slowest = e.model_flops / (MEASURED[e.stage] * peak) if e.stage in MEASURED else 0
        return max(e.seconds, slowest)

    found: dict[str, Duration] = {}
    for e in estimates:
        least, slowest = found.get(e.stage, Duration(0, 0))
        found[e.stage] = Duration(least + e.times * e.seconds, slowest + e.times * most(e))
    return found


def whole(stages: Mapping[str, Duration]) -> Duration:
    """Returns the duration of all stages together."""
    least, most = zip(*stages.values(), strict=True)
    return Duration(sum(least), sum(most))
