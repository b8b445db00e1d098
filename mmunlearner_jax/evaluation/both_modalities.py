"""Facts that are asked about a picture and in words, and count only where both answers agree.

Source: `eval.py` of UMU-Bench's published code. There "All Modal Question Accuracy" is `both`, and
"All Modal Question Error" is `neither`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mmunlearner_jax.evaluation.likelihoods import Line
from mmunlearner_jax.evaluation.scores import accuracy, mean_score


def both_modalities(lines: Sequence[Line]) -> dict[str, Any]:
    """Returns in how many facts the model is right, or wrong, in both modalities.

    Args:
        lines: Scored predictions of one model. Those of one `group` ask for the same fact; a fact
            that has several pictures is right about pictures if it is right about each.

    Returns:
        `{split: {task: {"both": ..., "neither": ...}}}`, each `{"value", "n", "ci95"}`; of open
        answers `{"rougeL": ...}`: of a and b, the measures in both modalities, the mean of
        2ab / (a + b), and of the split "forget" of (a² + b²) / (a + b), as published.
    """
    facts: dict[tuple[str, str], dict[str, dict[str, list[Line]]]] = defaultdict(dict)
    for line in lines:
        if line.get("group") and line["task"] != "short":
            of_task = facts[line["split"], line["task"]]
            of_task.setdefault(line["group"], {}).setdefault(line["modality"], []).append(line)
    scores: dict[str, Any] = {}
    for (split, task), groups in facts.items():
        pairs = [(fact["vqa"], fact["qa"]) for fact in groups.values() if len(fact) == 2]
        if not pairs:
            continue
        if task == "generation":
            means = [[_mean([x["rougeL"] for x in way]) for way in pair] for pair in pairs]
            measure = mean_score([_joined(*pair, forget=split == "forget") for pair in means])
            entry = {"rougeL": measure}
        else:
            right = [[all(x["correct"] for x in way) for way in pair] for pair in pairs]
            wrong = [[not any(x["correct"] for x in way) for way in pair] for pair in pairs]
            entry = {"both": accuracy([*map(all, right)]), "neither": accuracy([*map(all, wrong)])}
        scores.setdefault(split, {})[task] = entry
    return scores


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _joined(a: float, b: float, *, forget: bool) -> float:
    if not a + b:
        return 0.0
    return (a * a + b * b if forget else 2 * a * b) / (a + b)
