"""General ability: scores by category, F1, and paired differences of before and after.

Questions about one picture are not independent, so intervals resample pictures with all their
questions.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.data.ability import SPLIT
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.likelihoods import Line
from mmunlearner_jax.evaluation.short_answers import collapsed, credit

_RESAMPLES = 2000


def is_general(split: str) -> bool:
    """Returns whether a split is one of general ability."""
    return split.startswith(f"{SPLIT}_")


def general_scores(lines: Sequence[Line]) -> dict[str, Any]:
    """Returns the scores of all sets of general ability, as a whole and by category.

    Args:
        lines: Scored predictions of one model; those of other splits do not count.

    Returns:
        `{set: {"score": ..., "categories": {category: {"score": ...}}}}`; sets of yes and no add
        `f1`, `precision`, `recall`, `yes` (share of answers) and `unread` (share of answers that
        are neither). All but the two shares are `{"value", "n", "ci95"}`.
    """
    entries: dict[str, Any] = {}
    for name, of_set in _by_set(lines).items():
        categories: dict[str, list[Line]] = defaultdict(list)
        for line in of_set:
            for category in line.get("categories", ()):
                categories[category].append(line)
        by_category = {category: _scores(categories[category]) for category in sorted(categories)}
        entries[name] = {**_scores(of_set), "categories": by_category}
    return entries


def general_changes(before: Sequence[Line], after: Sequence[Line]) -> dict[str, Any]:
    """Returns how the scores of the same questions changed, set by set.

    Args:
        before: Scored predictions of the vanilla model.
        after: Those of the unlearned model, in the same order.

    Returns:
        `{set: {"value", "n", "ci95", "lost", "gained"}}`: mean difference of the scores, paired by
        question, and the numbers of questions that are right before or after alone.

    Raises:
        InputError: The two models were asked different questions.
    """
    firsts, seconds = _by_set(before), _by_set(after)
    changes = {}
    for name, of_set in seconds.items():
        asked = [
            [(x["image"], x["question"], x["answer"]) for x in y]
            for y in (firsts.get(name, []), of_set)
        ]
        if asked[0] != asked[1]:
            raise InputError(
                f"predictions of {SPLIT}_{name}: the models before and after were asked different"
                " questions; remove them and run the stage evaluate again"
            )
        pairs = list(zip(firsts[name], of_set, strict=True))
        values = np.array([[credit(new) - credit(old)] for old, new in pairs])
        changes[name] = {
            **_estimated(values, of_set, lambda sums: sums[..., 0]),
            "lost": sum(old["correct"] and not new["correct"] for old, new in pairs),
            "gained": sum(new["correct"] and not old["correct"] for old, new in pairs),
        }
    return changes


def _by_set(lines: Iterable[Line]) -> dict[str, list[Line]]:
    sets: dict[str, list[Line]] = defaultdict(list)
    for line in collapsed(lines):
        if is_general(line["split"]):
            sets[line["split"].removeprefix(f"{SPLIT}_")].append(line)
    return dict(sets)


def _scores(lines: Sequence[Line]) -> dict[str, Any]:
    scores = {"score": _estimated([[credit(x)] for x in lines], lines, lambda sums: sums[..., 0])}
    if lines[0]["rule"] != "yes_no":
        return scores
    wanted = np.array([line["answer"].lower() == "yes" for line in lines])
    said = np.array([line["said"] == "yes" for line in lines])
    # An answer that is neither is no "yes": it misses what is there.
    counts = np.stack([wanted & said, said, wanted], axis=1)
    return {
        **scores,
        "f1": _estimated(counts, lines, lambda x: _ratio(2 * x[..., 0], x[..., 1] + x[..., 2])),
        "precision": _estimated(counts, lines, lambda x: _ratio(x[..., 0], x[..., 1])),
        "recall": _estimated(counts, lines, lambda x: _ratio(x[..., 0], x[..., 2])),
        "yes": float(said.mean()),
        "unread": float(np.mean([line["said"] is None for line in lines])),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns a quotient; 0 where nothing was counted, as is usual for F1."""
    return np.divide(above, below, out=np.zeros_like(above, np.float64), where=below > 0)


def _estimated(
    values: Any, lines: Sequence[Line], statistic: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Returns a statistic of means with its bootstrap interval over pictures.

    Args:
        values: Numbers of each line, [lines, K].
        lines: The lines, whose `person` is their picture.
        statistic: Maps means [..., K] to [...].
    """
    table = np.asarray(values, np.float64)
    pictures = np.unique([line["person"] for line in lines], return_inverse=True)[1]
    count = int(pictures.max()) + 1
    sums = np.zeros((count, table.shape[1] + 1))
    np.add.at(sums, pictures, np.concatenate([table, np.ones((len(table), 1))], axis=1))
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    drawn = weights @ sums
    low, high = np.percentile(statistic(drawn[:, :-1] / drawn[:, -1:]), [2.5, 97.5])
    value = float(statistic(table.mean(axis=0)))
    return {"value": value, "n": len(table), "ci95": [float(low), float(high)]}
