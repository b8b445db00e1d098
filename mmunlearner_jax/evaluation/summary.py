"""A model's entries of `results.json`, computed from its prediction lines."""

from collections.abc import Sequence
from typing import Any

from mmunlearner_jax.evaluation.likelihoods import (
    Definition,
    Line,
    forget_quality,
    likelihood_scores,
    model_utility,
)
from mmunlearner_jax.evaluation.scores import summarise

# Prefixes of the metrics' names, by task. Probabilities of names are normalised by those of the
# wrong names, as in CLEAR's code; those of captions, which were trained on, are not.
_PREFIXES = {"generation": "", "naming": "naming_"}
_NORMALISED = ("naming",)


def summary(lines: Sequence[Line], definition: Definition = "paper") -> dict[str, Any]:
    """Returns scores by split, modality and metric: `scores.summarise`, and likelihood scores.

    Args:
        lines: Prediction lines of one model.
        definition: Definition of the truth ratio, see `likelihoods.log_truth_ratios`.

    Returns:
        `{split: {"vqa"|"qa": {metric: {"value", "n", "ci95"}}}}`. Lines with likelihoods add
        `probability` and `truth_ratio` of captions, `naming_probability` and `naming_truth_ratio`
        of names.
    """
    scores = summarise(lines)
    for (split, task), weighed in _weighed(lines).items():
        measures = likelihood_scores(
            weighed,
            forget=split == "forget",
            normalised=task in _NORMALISED,
            definition=definition,
        )
        named = {f"{_PREFIXES[task]}{name}": score for name, score in measures.items()}
        scores[split][weighed[0]["modality"]].update(named)
    return scores


def utility(lines: Sequence[Line], definition: Definition = "paper") -> dict[str, Any] | None:
    """Returns `likelihoods.model_utility` on all but the forget set; None without likelihoods."""
    entries = {key: weighed for key, weighed in _weighed(lines).items() if key[0] != "forget"}
    if not entries:
        return None
    return model_utility(
        {" ".join(key): weighed for key, weighed in entries.items()},
        normalised=[" ".join(key) for key in entries if key[1] in _NORMALISED],
        definition=definition,
    )


def quality(
    lines: Sequence[Line], reference: Sequence[Line], definition: Definition = "paper"
) -> dict[str, Any]:
    """Returns `likelihoods.forget_quality` by task.

    Args:
        lines: Prediction lines of the unlearned model.
        reference: Prediction lines of the retain-only model, on the forget set.
        definition: See `likelihoods.log_truth_ratios`.

    Raises:
        InputError: `reference` lacks a question of `lines`.
    """
    theirs = _weighed(reference)
    return {
        task: forget_quality(weighed, theirs.get((split, task), []), definition=definition)
        for (split, task), weighed in _weighed(lines).items()
        if split == "forget"
    }


def _weighed(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """Returns the lines with likelihoods, by split and task."""
    weighed: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.get("likelihoods"):
            weighed.setdefault((line["split"], line["task"]), []).append(line)
    return weighed
