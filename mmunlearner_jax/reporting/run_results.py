"""What the scores of a run say: rows before and after, the controls, and the mask's part.

Nothing is measured here: every number comes from `results.json`. What is said of the mask follows
from the control runs and their intervals.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.evaluation.kinds import Kinds, kinds_of, read_kinds, with_unknown
from mmunlearner_jax.evaluation.scores import Score
from mmunlearner_jax.unlearn.controls import CONTROLS

Scores = Mapping[str, Any]  # {split: {modality: {metric: Score}}}

METRICS = {
    "classification": "Multiple choice",
    "classification_letter": "Multiple choice, the letter read as published",
    "cloze": "Fill in the blank",
    "naming": "Names in free answers",
    "right": "Free answers with the right word",
    "rougeL": "Free answers, ROUGE-L",
    "probability": "Probability of the true answer, per token",
    "naming_probability": "Probability of the name beside wrong ones",
}
RUNS = {
    "before": "Before",
    "after": "This run",
    **{name: control.label for name, control in CONTROLS.items()},
}


@dataclass(frozen=True)
class ScoreChange:
    """The same questions before and after.

    Attributes:
        split: of the questions.
        modality: "vqa" with a picture, "qa" without.
        metric: a key of `METRICS`.
        before: the score of the model that has forgotten nothing.
        after: the score of the unlearned model.
        label: what the questions are about.
        falls: whether the score is meant to fall.
        headline: whether it stands at the top of the page.
    """

    split: str
    modality: str
    metric: str
    before: Score
    after: Score
    label: str
    falls: bool
    headline: bool


def run_kinds(results: Mapping[str, Any]) -> Kinds:
    """All kinds of questions of a run, known to a benchmark's record or not, in order."""
    return with_unknown(read_kinds(results), kinds_of(results["before"]))


def rows(results: Mapping[str, Any]) -> list[ScoreChange]:
    """The rows of the results table, metric by metric."""
    before, after = results["before"], results["after"]
    return [
        ScoreChange(
            split,
            modality,
            metric,
            score,
            after[split][modality][metric],
            kind.label,
            kind.falls,
            kind.headline and metric == "classification",
        )
        for metric in METRICS
        for (split, modality), kind in run_kinds(results).items()
        if (score := before.get(split, {}).get(modality, {}).get(metric))
    ]


def control_runs(results: Mapping[str, Any]) -> dict[str, Scores]:
    """This run and the runs it is to be compared with, by name; empty without controls."""
    controls = results.get("controls", {})
    own = {"before": results["before"], "after": results["after"]}
    return own | controls if controls else {}


def choice_score(scores: Scores, kind: Kind) -> Score | None:
    """The multiple-choice score of one kind of question, if there is one."""
    return scores.get(kind[0], {}).get(kind[1], {}).get("classification")


def mask_verdict(own: Scores, controls: Mapping[str, Scores], kinds: Kinds) -> str:
    """What the control rows bear out about the mask, and no more.

    Two runs differ on a row where their 95 % intervals do not overlap. Only what is better than
    both a random mask and no mask, with nothing worse, is put down to the mask.

    Args:
        own: scores of the run.
        controls: scores of the control runs, by name.
        kinds: of the questions.
    """
    rivals = ("random_mask", "no_mask")
    if not set(rivals) <= controls.keys():
        return (
            "There is no run with a random mask beside one without a mask: nothing here tells what"
            " the mask contributes."
        )
    better = {name: _apart(own, controls[name], kinds, better=True) for name in rivals}
    worse = {name: _apart(own, controls[name], kinds, better=False) for name in rivals}
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


def _apart(own: Scores, rival: Scores, kinds: Kinds, *, better: bool) -> list[str]:
    """Labels of the rows where `own` is better (or worse) and the intervals do not overlap."""
    labels = []
    for kind, about in kinds.items():
        mine, other = choice_score(own, kind), choice_score(rival, kind)
        if mine and other:
            high, low = (mine, other) if better != about.falls else (other, mine)
            if high["ci95"][0] > low["ci95"][1]:
                labels.append(about.label)
    return labels


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(f"“{label.lower()}”" for label in labels)
