"""Scores and their 95 % intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from mmunlearner_jax.data.samples import option_letters
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation import texts
from mmunlearner_jax.evaluation.parsing import offered_letter
from mmunlearner_jax.evaluation.short_answers import collapsed, scored_short
from mmunlearner_jax.evaluation.texts import same_words

Score = Mapping[str, Any]  # {"value": x, "n": n, "ci95": [low, high]}


def keyword_share(keywords: Sequence[str], response: str) -> float:
    """Returns which share of some keywords occurs in a response, in any case, 0 to 1.

    Source: `eval_exact_match` in `evaluate_util.py` of FIUBench's published code.
    """
    found = sum(texts.contains(response, keyword) for keyword in keywords)
    return round(found / len(keywords), 4)


def scored(line: Mapping[str, Any], *, published: bool = False) -> dict[str, Any]:
    """Returns a prediction line with its scores.

    Multiple choice: the most likely option is the choice. If the model was asked for a letter, the
    released parser reads it, too (D-27: it reads "A person" as A); it decides if no option was
    scored. A blank or a name is right if its words occur in the answer (the published rule). Long
    answers have an advantage there, so a blank also gets the exact match and the number of words
    (D-32). An open answer gets ROUGE and BLEU; if the question names accepted answers, it is right
    if it has the words of one of them. Composed and decomposed letters are equal. Short answers
    have rules of their own (`scored_short`).

    Args:
        line: Prediction with `task`, `answer`, `options`, `response` and `scores`: those of the
            options in nats, or empty. `letters` is the right letter, if the model was asked for
            one. `accepted` are the words that make an open answer right, if the question has some.
        published: Whether ROUGE and BLEU split words as the published scorers do (protocol
            "released").

    Returns:
        The line with `correct`. Multiple choice adds `choice`, and with letters `letter` (None if
        there was none to read) and `letter_correct`; a blank adds `exact` and `words`; an open
        answer adds `rouge1`, `rouge2`, `rougeL`, `rougeL_recall` and `bleu`, and `right` if there
        are accepted answers, and `keyword_share` if there are keywords.

    Raises:
        InputError: A score is not finite.
        ValueError: The task is unknown.
    """
    if line["task"] not in _SUMMARIES:
        raise ValueError(f"task {line['task']!r} is none of {', '.join(_SUMMARIES)}")
    answer, response = line["answer"], line["response"]
    if line["task"] == "classification":
        return {**line, **_scored_choice(line)}
    if line["task"] == "short":
        return {**line, **scored_short(line)}
    scores: dict[str, Any] = {"correct": texts.contains(response, answer)}
    if line["task"] == "cloze":
        scores |= {"exact": same_words(answer, response), "words": len(response.split())}
    if line["task"] == "generation":
        from mmunlearner_jax.evaluation import overlap  # takes two seconds

        measures = overlap.rouge(answer, response, published=published)
        measures["bleu"] = overlap.bleu(answer, response, published=published)
        scores |= {name: round(value, 4) for name, value in measures.items()}
        if accepted := line.get("accepted"):
            right = any(texts.has_words(response, words) for words in accepted)
            scores |= {"right": right, "correct": right}
        if keywords := line.get("keywords"):
            scores["keyword_share"] = keyword_share(keywords, response)
    return {**line, **scores}


def _scored_choice(line: Mapping[str, Any]) -> dict[str, Any]:
    options, letters = line["options"], option_letters(line["options"])
    letter = offered_letter(line["response"], letters)
    if line["scores"]:
        # Without this check, argmax would choose a NaN.
        if len(line["scores"]) != len(options) or not np.isfinite(line["scores"]).all():
            raise InputError(
                f"{line.get('question')!r}: scores must be a finite number for each option; the"
                " file or the model is damaged, or unlearning diverged"
            )
        choice = options[int(np.argmax(line["scores"]))]
        correct = texts.composed(choice) == texts.composed(line["answer"])
    else:
        choice = None if letter is None else options[letters.index(letter)]
        correct = letter == line["letters"]
    scores = {"choice": choice, "correct": correct}
    if line.get("letters"):
        scores |= {"letter": letter, "letter_correct": letter == line["letters"]}
    return scores


def accuracy(correct: Sequence[bool]) -> dict[str, Any]:
    """Returns the fraction of right answers with its Wilson interval: `{"value", "n", "ci95"}`."""
    right, n = int(sum(correct)), len(correct)
    ci = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    return {"value": right / n, "n": n, "ci95": [float(ci.low), float(ci.high)]}


def mean_score(values: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """Returns a mean with its bootstrap percentile interval: `{"value", "n", "ci95"}`.

    Args:
        values: One or more finite numbers.
        seed: Seed of the bootstrap.

    Raises:
        InputError: There is no value, or one is not finite.
    """
    x = np.asarray(values, np.float64)
    if not x.size or not np.isfinite(x).all():
        raise InputError(
            f"scores: {x.size} values have no mean, as there are none or not all are finite;"
            " evaluate again with a model that has not diverged"
        )
    mean = float(x.mean())
    if np.ptp(x) == 0:  # resamples of equal values are all equal
        return {"value": mean, "n": len(x), "ci95": [mean, mean]}
    rng = np.random.default_rng(seed)
    batch = max(1, 2**22 // len(x))  # resamples in memory at once; it does not change the result
    bootstrap = scipy.stats.bootstrap((x,), np.mean, batch=batch, method="percentile", rng=rng)
    ci = bootstrap.confidence_interval
    return {"value": mean, "n": len(x), "ci95": [float(ci.low), float(ci.high)]}


# By task and metric: the field of a line to summarise, and the function that does it.
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
    "short": {"short": ("correct", accuracy), "vqa_score": ("credit", mean_score)},
    "generation": {
        "right": ("right", accuracy),
        "keywords": ("keyword_share", mean_score),
        **{
            name: (name, mean_score)
            for name in ("rouge1", "rouge2", "rougeL", "rougeL_recall", "bleu")
        },
    },
}


def summarise(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the scores of prediction lines.

    Args:
        predictions: Lines with `split`, `modality`, `task` and the fields of `scored`. A line
            counts in the metrics whose fields it has.

    Returns:
        `{split: {"vqa"|"qa": {metric: {"value", "n", "ci95"}}}}`. The metrics of multiple choice
        are `classification` (likelihood) and `classification_letter` (released parser); those of
        blanks `cloze`, `cloze_exact` and `words` (mean length of an answer, in words); those of
        open answers `right`, `keywords`, `rouge1`, `rouge2`, `rougeL`, `rougeL_recall`, `bleu`;
        those of short answers `short` and `vqa_score`. All but `words` are from 0 to 1. Fractions
        have Wilson intervals, means bootstrap intervals.
    """
    cells: dict[tuple[str, str, str, Any], list[Any]] = defaultdict(list)
    for line in collapsed(predictions):
        for metric, (field, summary) in _SUMMARIES[line["task"]].items():
            if field in line:
                cells[line["split"], line["modality"], metric, summary].append(line[field])
    scores: dict[str, Any] = {}
    for (split, modality, metric, summary), values in cells.items():
        scores.setdefault(split, {}).setdefault(modality, {})[metric] = summary(values)
    return scores
