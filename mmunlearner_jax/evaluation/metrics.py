"""Scores and their 95 % intervals."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score import rouge_scorer
from scipy import stats

from mmunlearner_jax.evaluation.parsing import offered_letter, option_letters

_ROUGE = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
_SMOOTHING = SmoothingFunction().method1


def rouge(reference: str, response: str) -> dict[str, float]:
    """ROUGE with stemming.

    Returns:
        The F-measures `rouge1`, `rouge2`, `rougeL`, as MLLMU-Bench's and MMUnlearner's evaluators
        compute them, and `rougeL_recall`, which CLEAR's and TOFU's model utility takes.
    """
    found = _ROUGE.score(reference, response)
    measures = {name: float(score.fmeasure) for name, score in found.items()}
    return {**measures, "rougeL_recall": float(found["rougeL"].recall)}


def bleu(reference: str, response: str) -> float:
    """BLEU-4 of one sentence, as MMUnlearner's `compute_bleu`: words at blanks, smoothing 1."""
    words = response.split()
    return float(sentence_bleu([reference.split()], words, smoothing_function=_SMOOTHING))


def same_words(reference: str, response: str) -> bool:
    """Whether two texts have the same words in order, whatever their case and punctuation."""
    return words(reference) == words(response)


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def scored(line: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction line with what follows from the model's answer alone.

    Multiple choice: the most likely option is the choice; where the model was asked for a letter,
    the released parser reads it as well (D-27), and it decides where no option was scored. A blank
    or a name is right if its words occur in the answer (the published test); as wordy answers have
    an advantage there, the exact match and the number of words stand beside a blank (D-32). An open
    answer gets ROUGE and BLEU.

    Args:
        line: with `task`, `answer`, `options`, `response`, and `scores` of the options in nats, or
            none; maybe `letters`: the right one, where the response was to be a letter.

    Returns:
        The line with `correct`; multiple choice: `choice`, and with letters `letter` (None: none
        was read) and `letter_correct`; a blank: `exact`, `words`; an open answer: `rouge1`,
        `rouge2`, `rougeL`, `rougeL_recall`, `bleu`.
    """
    if line["task"] not in _SUMMARIES:
        raise ValueError(f"task {line['task']!r} is none of {', '.join(_SUMMARIES)}")
    answer, response = line["answer"], line["response"]
    if line["task"] == "classification":
        return {**line, **_scored_choice(line)}
    found: dict[str, Any] = {"correct": answer.lower() in response.lower()}
    if line["task"] == "cloze":
        found |= {"exact": same_words(answer, response), "words": len(response.split())}
    if line["task"] == "generation":
        found |= {name: round(value, 4) for name, value in rouge(answer, response).items()}
        found["bleu"] = round(bleu(answer, response), 4)
    return {**line, **found}


def _scored_choice(line: Mapping[str, Any]) -> dict[str, Any]:
    options, letters = line["options"], option_letters(line["options"])
    letter = offered_letter(line["response"], letters)
    if line["scores"]:
        choice = options[int(np.argmax(line["scores"]))]
        correct = choice == line["answer"]
    else:
        choice = None if letter is None else options[letters.index(letter)]
        correct = letter == line["letters"]
    found = {"choice": choice, "correct": correct}
    if line.get("letters"):
        found |= {"letter": letter, "letter_correct": letter == line["letters"]}
    return found


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
    batch = max(1, 2**22 // len(x))  # resamples held at once; the result is the same
    found = stats.bootstrap((x,), np.mean, batch=batch, method="percentile", rng=rng)
    ci = found.confidence_interval
    return {"value": mean, "n": len(x), "ci95": [float(ci.low), float(ci.high)]}


# By task: metric -> the field of a line that it sums up, and how.
_SUMMARIES = {
    "classification": {
        "classification": ("correct", accuracy),
        "classification_letter": ("letter_correct", accuracy),
    },
    "cloze": {
        "cloze": ("correct", accuracy),
        "cloze_exact": ("exact", accuracy),
        "words": ("words", mean_score),
    },
    "naming": {"naming": ("correct", accuracy)},
    "generation": {
        name: (name, mean_score) for name in ("rouge1", "rouge2", "rougeL", "rougeL_recall", "bleu")
    },
}


def summarise(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of a list of prediction lines.

    Args:
        predictions: lines with `split`, `modality`, `task` and what `scored` adds; a line is in
            the metrics whose fields it has.

    Returns:
        `{split: {"vqa"|"qa": {metric: {"value", "n", "ci95"}}}}`. Metrics: of multiple choice
        `classification` (likelihood) and `classification_letter` (released parser); of blanks
        `cloze`, `cloze_exact` and `words` (mean length of an answer, in words); of open answers
        `rouge1`, `rouge2`, `rougeL`, `rougeL_recall`, `bleu`. All but `words` lie in 0 to 1;
        intervals are Wilson's for fractions and bootstrapped for means.
    """
    cells: dict[tuple[str, str, str, Any], list[Any]] = defaultdict(list)
    for line in predictions:
        for metric, (field, summary) in _SUMMARIES[line["task"]].items():
            if field in line:
                cells[line["split"], line["modality"], metric, summary].append(line[field])
    scores: dict[str, Any] = {}
    for (split, modality, metric, summary), values in cells.items():
        scores.setdefault(split, {}).setdefault(modality, {})[metric] = summary(values)
    return scores
