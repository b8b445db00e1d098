"""From prediction lines to everything that `results.json` says of a model."""

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

# The metrics' names of a task begin so. Names are weighed against the wrong ones (normalised), as
# CLEAR's code does; captions, which were trained on, are not.
_PREFIXES = {"generation": "", "naming": "naming_"}
_NORMALISED = ("naming",)


def summary(lines: Sequence[Line], definition: Definition = "paper") -> dict[str, Any]:
    """Scores by split, modality and metric: `scores.summarise`, and likelihoods where there are.

    Args:
        lines: of one model.
        definition: of the truth ratio, see `likelihoods.log_truth_ratios`.

    Returns:
        `{split: {"vqa"|"qa": {metric: {"value", "n", "ci95"}}}}`; likelihoods add `probability` and
        `truth_ratio` of captions, `naming_probability` and `naming_truth_ratio` of names.
    """
    scores = summarise(lines)
    for (split, task), weighed in _weighed(lines).items():
        found = likelihood_scores(
            weighed,
            forget=split == "forget",
            normalised=task in _NORMALISED,
            definition=definition,
        )
        named = {f"{_PREFIXES[task]}{name}": score for name, score in found.items()}
        scores[split][weighed[0]["modality"]].update(named)
    return scores


def utility(lines: Sequence[Line], definition: Definition = "paper") -> dict[str, Any] | None:
    """`likelihoods.model_utility` of all but the forget set; None without likelihoods."""
    entries = {key: found for key, found in _weighed(lines).items() if key[0] != "forget"}
    if not entries:
        return None
    return model_utility(
        {" ".join(key): found for key, found in entries.items()},
        normalised=[" ".join(key) for key in entries if key[1] in _NORMALISED],
        definition=definition,
    )


def quality(
    lines: Sequence[Line], reference: Sequence[Line], definition: Definition = "paper"
) -> dict[str, Any]:
    """`likelihoods.forget_quality` by task.

    Args:
        lines: of the unlearned model.
        reference: of the retain-only model, on the forget set.
        definition: see `likelihoods.log_truth_ratios`.

    Raises:
        InputError: the reference was not asked what the unlearned model was.
    """
    theirs = _weighed(reference)
    return {
        task: forget_quality(found, theirs.get((split, task), []), definition=definition)
        for (split, task), found in _weighed(lines).items()
        if split == "forget"
    }


def _weighed(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """Lines with likelihoods, by split and task."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.get("likelihoods"):
            found.setdefault((line["split"], line["task"]), []).append(line)
    return found
