"""Scores and their 95 % intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rouge_score import rouge_scorer
from scipy import stats

_ROUGE = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reference: str, response: str) -> float:
    """ROUGE-L F-measure with stemming, as MLLMU-Bench's evaluators compute it."""
    return float(_ROUGE.score(reference, response)["rougeL"].fmeasure)


def scored(line: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction line with what follows from the model's answer alone.

    Multiple choice: the most likely option is the choice. A blank is right if its words occur in
    the answer (the published test; D-32: wordy answers have an advantage).

    Args:
        line: with `task`, `answer`, `options`, `response`, and `scores` of the options in nats.

    Returns:
        The line with `rougeL`, `correct` and, for multiple choice, `choice`.
    """
    found: dict[str, Any] = {"rougeL": round(rouge_l(line["answer"], line["response"]), 4)}
    if line["task"] == "classification":
        found["choice"] = line["options"][int(np.argmax(line["scores"]))]
        found["correct"] = found["choice"] == line["answer"]
    else:
        found["correct"] = line["answer"].lower() in line["response"].lower()
    return {**line, **found}


def accuracy(correct: Sequence[bool]) -> dict[str, Any]:
    """A fraction with its Wilson interval: `{"value", "n", "ci95"}`."""
    right, n = int(sum(correct)), len(correct)
    ci = stats.binomtest(right, n).proportion_ci(method="wilson")
    return {"value": right / n, "n": n, "ci95": [float(ci.low), float(ci.high)]}


def mean_score(values: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """A mean with its bootstrap percentile interval: `{"value", "n", "ci95"}`."""
    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if np.ptp(x) == 0:  # resampling equal values says nothing more
        return {"value": mean, "n": len(x), "ci95": [mean, mean]}
    rng = np.random.default_rng(seed)
    ci = stats.bootstrap((x,), np.mean, method="percentile", rng=rng).confidence_interval
    return {"value": mean, "n": len(x), "ci95": [float(ci.low), float(ci.high)]}


def summarise(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of a list of prediction lines.

    Args:
        predictions: lines with `split`, `modality`, `task`, `correct`, `rougeL`.

    Returns:
        `{split: {"vqa"|"qa": {"classification"|"cloze"|"rougeL": {"value", "n", "ci95"}}}}`.
    """
    cells: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for line in predictions:
        generation = line["task"] == "generation"
        key = "rougeL" if generation else line["task"]
        value = line["rougeL"] if generation else line["correct"]
        cells[line["split"], line["modality"], key].append(value)
    scores: dict[str, Any] = {}
    for (split, modality, key), values in cells.items():
        score = mean_score(values) if key == "rougeL" else accuracy(values)
        scores.setdefault(split, {}).setdefault(modality, {})[key] = score
    return scores
