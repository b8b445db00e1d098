"""What an attack that guesses membership comes to: how far it is from guessing.

Axes: Q questions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.audit.attack import AFTER, BEFORE, GOLD, Attack, Trials
from mmunlearner_jax.audit.recovery import MARGIN, answered_by_all, estimate


def entry(people: Sequence[str], trials: Mapping[str, Trials], attack: Attack) -> dict[str, Any]:
    """Returns the entry of `audit.json` of an attack whose `guess` is not None.

    A model's trace is the distance of its mean from `guess`. Of several trials the one counts that
    leaves most trace in the model before unlearning, for all models. `recovered` is the part of
    the trace that is left, and `score` 1 less twice the trace. `above_gold` is the signed
    difference of the means; `back` and `lost` are the traces whose quotient `recovered` is.

    Args:
        people: The person of each question, Q of them.
        trials: The attack's trials, by model.
        attack: The attack.
    """
    there = answered_by_all(trials)
    if not there.any():
        return {"verdict": "not tried: no question is left to ask"}
    guess = attack.guess or 0.0
    of_people = np.asarray(people)[there]
    kept = {
        model: {name: values[there] for name, values in of_model.items()}
        for model, of_model in trials.items()
    }
    chosen = max(kept[BEFORE], key=lambda name: abs(float(np.mean(kept[BEFORE][name])) - guess))
    every = np.ones(len(of_people), bool)

    def distance(model: str, rows: np.ndarray) -> float:
        return float(np.mean(kept[model][chosen][rows])) - guess

    def trace(model: str, rows: np.ndarray) -> float:
        return abs(distance(model, rows))

    def left(model: str, rows: np.ndarray) -> float:
        before = trace(BEFORE, rows)
        return trace(model, rows) / before if before else 1.0

    result: dict[str, Any] = {GOLD: None}
    for model, of_model in kept.items():
        means = {name: float(np.mean(values)) for name, values in of_model.items()}
        score = 1 - 2 * trace(model, every)
        own = {"clean": guess, "attacked": means[chosen], "trial": chosen, "trials": means}
        result[model] = own | {"score": score}
    share = estimate(lambda rows: left(AFTER, rows), of_people)
    result |= {"recovered": share["value"], "ci95": share["ci95"]}
    result |= {"n": len(of_people), "people": len({*of_people})}
    result |= {"back": trace(AFTER, every), "lost": {"value": trace(BEFORE, every)}}
    before = estimate(lambda rows: distance(BEFORE, rows), of_people)["ci95"]
    if GOLD in trials:
        result["recovered_gold"] = left(GOLD, every)
        # Signed: unseen photographs may be drawn otherwise than taught ones, for gold as well.
        difference = estimate(lambda rows: distance(AFTER, rows) - distance(GOLD, rows), of_people)
        result["above_gold"] = difference
    else:
        difference = estimate(lambda rows: distance(AFTER, rows), of_people)
    verdict = _verdict(before, difference["ci95"], gold=GOLD in trials)
    return result | {"verdict": verdict}


def _verdict(
    before: Sequence[float] | None, difference: Sequence[float] | None, *, gold: bool
) -> str:
    """Returns a verdict.

    Args:
        before: Interval of the distance before unlearning; None: there is none.
        difference: Interval of the distance after unlearning, less gold's if there is gold.
        gold: Whether there is a gold model.
    """
    if before is None or difference is None:
        return "too few people or photographs for an interval"
    if before[0] <= 0 <= before[1]:
        return "photographs could not be told apart before unlearning either"
    low, high = difference
    if low > 0 or high < 0:
        return "taught photographs are told apart: a trace is left"
    if max(-low, high) > MARGIN:
        return "undecided"
    return "no more trace than gold's" if gold else "no trace is left"
