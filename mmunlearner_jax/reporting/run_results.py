"""The scores of a run: rows before and after unlearning, the controls, and a verdict on the mask.

Nothing is measured here: every number comes from `results.json`. The verdict on the mask follows
from the control runs and their intervals.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.data.benchmarks.base import Kind, ScoredKind
from mmunlearner_jax.evaluation.kinds import Kinds, kinds_of, read_kinds, with_unknown
from mmunlearner_jax.evaluation.scores import Score
from mmunlearner_jax.reporting.verdicts import Verdict, floor_of, judge, judge_earlier
from mmunlearner_jax.unlearn.controls import CONTROLS

Scores = Mapping[str, Any]  # {split: {modality: {metric: Score}}}

METRICS = {
    "classification": "Multiple choice",
    "classification_letter": "Multiple choice, the letter read as published",
    "cloze": "Fill in the blank",
    "naming": "Names in free answers",
    "short": "General ability: right answers",
    "vqa_score": "General ability: agreement with people's answers",
    "right": "Free answers with the right word",
    "keywords": "Free answers, share of keywords",
    "rougeL": "Free answers, ROUGE-L",
    "probability": "Probability of the true answer, per token",
    "naming_probability": "Probability of the name beside wrong ones",
}
TASK_OF = {  # the task of the answers that a metric scores
    **dict.fromkeys(("classification", "classification_letter"), "classification"),
    "cloze": "cloze",
    **dict.fromkeys(("naming", "naming_probability"), "naming"),
    **dict.fromkeys(("short", "vqa_score"), "short"),
    **dict.fromkeys(("right", "keywords", "rougeL", "probability"), "generation"),
}
RUNS = {
    "before": "Before",
    "after": "This run",
    **{name: control.label for name, control in CONTROLS.items()},
}


@dataclass(frozen=True)
class ScoreChange:
    """Scores of the same questions before and after unlearning.

    Attributes:
        split: Split of the questions.
        modality: "vqa" (with a picture) or "qa" (in words).
        metric: A key of `METRICS`.
        before: Score of the vanilla model.
        after: Score of the unlearned model.
        label: Label of the kind of question.
        falls: Whether the score is meant to fall.
        headline: Whether the score stands at the top of the page.
        verdict: What the change says, against the bars.
        floor: Score of a model that knows nothing, 0 to 1; None where it is not known.
    """

    split: str
    modality: str
    metric: str
    before: Score
    after: Score
    label: str
    falls: bool
    headline: bool
    verdict: Verdict
    floor: float | None


def run_kinds(results: Mapping[str, Any]) -> Kinds:
    """Returns a run's kinds of questions in order, with those that no benchmark's record has."""
    return with_unknown(read_kinds(results), kinds_of(results["before"]))


def rows(results: Mapping[str, Any], bars: ReportConfig) -> list[ScoreChange]:
    """Returns the rows of the results table, metric by metric, with their verdicts.

    Args:
        results: Content of `results.json`.
        bars: Bars of the verdicts.
    """
    return [
        _row(results, bars, kind, about, metric)
        for metric in METRICS
        for kind, about in run_kinds(results).items()
        if metric in results["before"].get(kind[0], {}).get(kind[1], {})
    ]


def _row(
    results: Mapping[str, Any], bars: ReportConfig, kind: Kind, about: ScoredKind, metric: str
) -> ScoreChange:
    split, modality = kind
    before, after = (results[when][split][modality][metric] for when in ("before", "after"))
    floor = floor_of(metric, kind, falls=about.falls, chances=results.get("chance", {}))
    if about.falls and about.earlier:
        verdict = judge_earlier(before, after, bars, floor=floor)
    else:
        verdict = judge(before, after, bars, falls=about.falls, floor=floor)
    return ScoreChange(
        split,
        modality,
        metric,
        before,
        after,
        about.label,
        about.falls,
        about.headline and metric == "classification",
        verdict,
        floor,
    )


def control_runs(results: Mapping[str, Any]) -> dict[str, Scores]:
    """Returns the scores of this run and of its controls by name; empty without controls."""
    controls = results.get("controls", {})
    own = {"before": results["before"], "after": results["after"]}
    return own | controls if controls else {}


def choice_score(scores: Scores, kind: Kind) -> Score | None:
    """Returns the multiple-choice score of a kind of question, or None."""
    return scores.get(kind[0], {}).get(kind[1], {}).get("classification")


def mask_verdict(own: Scores, controls: Mapping[str, Scores], kinds: Kinds) -> str:
    """Returns sentences on what the controls show about the mask.

    Two runs differ on a row if their 95 % intervals do not overlap. The mask gets the credit for a
    row only if the run is better than both a random mask and no mask there, and worse nowhere.

    Args:
        own: Scores of the run.
        controls: Scores of the controls, by name.
        kinds: Kinds of questions.
    """
    rivals = ("random_mask", "no_mask")
    if not set(rivals) <= controls.keys():
        return (
            "There is no run with a random mask beside one without a mask, so what the mask"
            " contributes is unknown."
        )
    better = {name: _apart(own, controls[name], kinds, better=True) for name in rivals}
    worse = {name: _apart(own, controls[name], kinds, better=False) for name in rivals}
    sentences = []
    for name in rivals:
        differences = [
            f"{word} on {_listed(labels)}"
            for word, labels in (("better", better[name]), ("worse", worse[name]))
            if labels
        ]
        sentences.append(
            f"Compared with {RUNS[name].lower()}, this run is {' and '.join(differences)}."
            if differences
            else f"Compared with {RUNS[name].lower()}, the intervals overlap on every row."
        )
    both = [label for label in better["random_mask"] if label in better["no_mask"]]
    if both and not any(worse.values()):
        sentences.append(
            f"In this run, the mask itself has an effect on {_listed(both)}. This is one seed, and"
            " questions about one person are not independent."
        )
    else:
        sentences.append(
            "So this run does not show that the mask, rather than the alternation of steps, has an"
            " effect."
        )
    return " ".join(sentences)


def _apart(own: Scores, rival: Scores, kinds: Kinds, *, better: bool) -> list[str]:
    """Returns the labels of rows where `own` is better (or worse) and intervals do not overlap."""
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
