"""Scores and their 95 % intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score import rouge_scorer
from scipy import stats

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation import texts
from mmunlearner_jax.evaluation.parsing import offered_letter, option_letters
from mmunlearner_jax.evaluation.texts import same_words

Score = Mapping[str, Any]  # {"value": x, "n": n, "ci95": [low, high]}

_MEASURES = ["rouge1", "rouge2", "rougeL"]
_PUBLISHED = rouge_scorer.RougeScorer(_MEASURES, use_stemmer=True)
_ROUGE = rouge_scorer.RougeScorer(_MEASURES, tokenizer=texts.Tokenizer())
_SMOOTHING = SmoothingFunction().method1


def rouge(reference: str, response: str, *, published: bool = False) -> dict[str, float]:
    """ROUGE with stemming.

    Args:
        reference: the true text.
        response: the model's.
        published: cut words as the published scorer does, which drops all that is not ASCII;
            otherwise `texts.Tokenizer` does, and texts in ASCII score the same.

    Returns:
        The F-measures `rouge1`, `rouge2`, `rougeL`, as MLLMU-Bench's and MMUnlearner's evaluators
        compute them, and `rougeL_recall`, which CLEAR's and TOFU's model utility takes.
    """
    found = (_PUBLISHED if published else _ROUGE).score(reference, response)
    measures = {name: float(score.fmeasure) for name, score in found.items()}
    return {**measures, "rougeL_recall": float(found["rougeL"].recall)}


def bleu(reference: str, response: str, *, published: bool = False) -> float:
    """BLEU-4 of one sentence with smoothing 1.

    Args:
        reference: the true text.
        response: the model's.
        published: words are what stands between blanks, as in MMUnlearner's `compute_bleu`;
            otherwise `texts.pieces`, which are the same in ASCII.
    """
    cut = str.split if published else texts.pieces
    return float(sentence_bleu([cut(reference)], cut(response), smoothing_function=_SMOOTHING))


def scored(line: Mapping[str, Any], *, published: bool = False) -> dict[str, Any]:
    """A prediction line with what follows from the model's answer alone.

    Multiple choice: the most likely option is the choice; where the model was asked for a letter,
    the released parser reads it as well (D-27), and it decides where no option was scored. A blank
    or a name is right if its words occur in the answer (the published test); as wordy answers have
    an advantage there, the exact match and the number of words stand beside a blank (D-32). An open
    answer gets ROUGE and BLEU. Composed and decomposed letters are the same everywhere.

    Args:
        line: with `task`, `answer`, `options`, `response`, and `scores` of the options in nats, or
            none; maybe `letters`: the right one, where the response was to be a letter.
        published: ROUGE and BLEU cut words as the published scorers do, for the protocol
            "released".

    Returns:
        The line with `correct`; multiple choice: `choice`, and with letters `letter` (None: none
        was read) and `letter_correct`; a blank: `exact`, `words`; an open answer: `rouge1`,
        `rouge2`, `rougeL`, `rougeL_recall`, `bleu`.

    Raises:
        InputError: a score is not finite.
        ValueError: the task is unknown.
    """
    if line["task"] not in _SUMMARIES:
        raise ValueError(f"task {line['task']!r} is none of {', '.join(_SUMMARIES)}")
    answer, response = line["answer"], line["response"]
    if line["task"] == "classification":
        return {**line, **_scored_choice(line)}
    found: dict[str, Any] = {"correct": texts.contains(response, answer)}
    if line["task"] == "cloze":
        found |= {"exact": same_words(answer, response), "words": len(response.split())}
    if line["task"] == "generation":
        measures = rouge(answer, response, published=published)
        measures["bleu"] = bleu(answer, response, published=published)
        found |= {name: round(value, 4) for name, value in measures.items()}
    return {**line, **found}


def _scored_choice(line: Mapping[str, Any]) -> dict[str, Any]:
    options, letters = line["options"], option_letters(line["options"])
    letter = offered_letter(line["response"], letters)
    if line["scores"]:
        # Where one is NaN, argmax takes it.
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
    found = {"choice": choice, "correct": correct}
    if line.get("letters"):
        found |= {"letter": letter, "letter_correct": letter == line["letters"]}
    return found


def accuracy(correct: Sequence[bool]) -> dict[str, Any]:
    """A fraction of one line or more, with its Wilson interval: `{"value", "n", "ci95"}`."""
    right, n = int(sum(correct)), len(correct)
    ci = stats.binomtest(right, n).proportion_ci(method="wilson")
    return {"value": right / n, "n": n, "ci95": [float(ci.low), float(ci.high)]}


def mean_score(values: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """A mean with its bootstrap percentile interval: `{"value", "n", "ci95"}`.

    Args:
        values: one or more, all finite.
        seed: of the bootstrap.

    Raises:
        InputError: there is none, or one is not finite.
    """
    x = np.asarray(values, np.float64)
    if not x.size or not np.isfinite(x).all():
        raise InputError(
            f"scores: a mean of {x.size} values of which not all are finite; evaluate again, with a"
            " model that has not diverged"
        )
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
