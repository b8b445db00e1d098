"""What an audit costs, from the times of other programs."""

from collections.abc import Sequence
from typing import NamedTuple

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.config import Config
from mmunlearner_jax.planning.estimate import Estimate
from mmunlearner_jax.planning.programs import IN_WORDS

MODELS = 3  # before, after, gold


class AuditCost(NamedTuple):
    """What the attacks of a config cost on three models.

    Attributes:
        asked: Number of questions that are asked.
        learned: Number of questions that are learned in steps.
        seconds: Time at the rooflines.
    """

    asked: int
    learned: int
    seconds: float


def audit_cost(config: Config, estimates: Sequence[Estimate]) -> AuditCost | None:
    """Returns what an audit costs; None where the evaluation or retain steps were not estimated.

    A question costs what it costs in the evaluation, and to learn one what it costs in a retain
    step.

    Args:
        config: Config of the run; `plan.audited` says how many questions are asked.
        estimates: Estimates of the run's programs.
    """
    asking = [e for e in estimates if e.stage == "evaluate" and not e.name.endswith(IN_WORDS)]
    learning = [e for e in estimates if e.name == "retain step"]
    if not asking or not learning or not all(e.fits for e in (*asking, *learning)):
        return None
    options, questions = config.audit, config.plan.audited
    costs = [ATTACKS[name].cost(options.own.get(name)) for name in options.attacks]
    asked = MODELS * questions * (1 + sum(cost.passes for cost in costs))
    learned = MODELS * sum(cost.learned for cost in costs)
    seconds = asked * sum(1 / e.questions_per_second for e in asking)
    return AuditCost(asked, learned, seconds + learned / learning[0].questions_per_second)
