"""What the scores of a run say: rows before and after, the controls, and the mask's part.

Nothing is measured here: every number comes from `results.json`. What is said of the mask follows
from the control runs and their intervals.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmunlearner_jax.evaluation.kinds import ASKED
from mmunlearner_jax.evaluation.scores import Score
from mmunlearner_jax.unlearn.controls import CONTROLS

Scores = Mapping[str, Any]  # {split: {modality: {metric: Score}}}

METRICS = {
    "classification": "Multiple choice",
    "classification_letter": "Multiple choice, the letter read as published",
    "cloze": "Fill in the blank",
    "naming": "Names in free answers",
    "rougeL": "Free answers, ROUGE-L",
    "probability": "Probability of the true answer, per token",
    "naming_probability": "Probability of the name beside wrong ones",
}
HIGHLIGHTS = {
    ("forget", "vqa", "classification"),
    ("test", "vqa", "classification"),
    ("forget", "qa", "classification"),
    ("test_retain", "vqa", "classification"),
    ("real_faces", "vqa", "classification"),
}
RUNS = {
    "before": "Before",
    "after": "This run",
    **{name: control.label for name, control in CONTROLS.items()},
}


@dataclass(frozen=True)
class ScoreChange:
    """The same questions before and after."""

    split: str
    modality: str
    metric: str
    before: Score
    after: Score

    @property
    def label(self) -> str:
        """What the questions are about."""
        return ASKED[self.split, self.modality].label

    @property
    def falls(self) -> bool:
        """Whether the score is meant to fall."""
        return ASKED[self.split, self.modality].falls


def rows(results: Mapping[str, Any]) -> list[ScoreChange]:
    """The rows of the results table, metric by metric."""
    before, after = results["before"], results["after"]
    return [
        ScoreChange(split, modality, metric, found, after[split][modality][metric])
        for metric in METRICS
        for split, modality in ASKED
        if (found := before.get(split, {}).get(modality, {}).get(metric))
    ]


def control_runs(results: Mapping[str, Any]) -> dict[str, Scores]:
    """This run and the runs it is to be compared with, by name; empty without controls."""
    controls = results.get("controls", {})
    own = {"before": results["before"], "after": results["after"]}
    return own | controls if controls else {}


def choice_score(scores: Scores, asked: tuple[str, str]) -> Score | None:
    """The multiple-choice score of one kind of question, if there is one."""
    return scores.get(asked[0], {}).get(asked[1], {}).get("classification")


def mask_verdict(own: Scores, controls: Mapping[str, Scores]) -> str:
    """What the control rows bear out about the mask, and no more.

    Two runs differ on a row where their 95 % intervals do not overlap. Only what is better than
    both a random mask and no mask, with nothing worse, is put down to the mask.
    """
    rivals = ("random_mask", "no_mask")
    if not set(rivals) <= controls.keys():
        return (
            "There is no run with a random mask beside one without a mask: nothing here tells what"
            " the mask contributes."
        )
    better = {name: _apart(own, controls[name], better=True) for name in rivals}
    worse = {name: _apart(own, controls[name], better=False) for name in rivals}
    said = []
    for name in rivals:
        found = [
            f"{word} on {_listed(labels)}"
            for word, labels in (("better", better[name]), ("worse", worse[name]))
            if labels
        ]
        said.append(
            f"Against {RUNS[name].lower()} it is {' and '.join(found)}."
            if found
            else f"Against {RUNS[name].lower()} the intervals overlap on every row."
        )
    both = [label for label in better["random_mask"] if label in better["no_mask"]]
    if both and not any(worse.values()):
        said.append(
            f"In this run, then, the mask does something of its own on {_listed(both)}. It is one"
            " seed, and questions about one person are not independent."
        )
    else:
        said.append(
            "So this run does not show that the mask, rather than the alternation, does this."
        )
    return " ".join(said)


def _apart(own: Scores, rival: Scores, *, better: bool) -> list[str]:
    """Labels of the rows where `own` is better (or worse) and the intervals do not overlap."""
    labels = []
    for asked, (label, falls) in ASKED.items():
        mine, other = choice_score(own, asked), choice_score(rival, asked)
        if mine and other:
            high, low = (mine, other) if better != falls else (other, mine)
            if high["ci95"][0] > low["ci95"][1]:
                labels.append(label)
    return labels


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(f"“{label.lower()}”" for label in labels)
