"""Verdicts: what a score before and after unlearning says, against the bars of `config.report`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.evaluation.scores import Score

Grade = Literal["met", "partly", "missed", "none"]

GRADES: Sequence[Grade] = ("met", "partly", "missed", "none")  # from best to worst, then unknown
MARKS: Mapping[Grade, str] = {"met": "✓", "partly": "▲", "missed": "✗", "none": "–"}
# By whether scores are meant to fall.
AIMS: Mapping[bool, str] = {True: "To forget", False: "To keep"}
_WORDS: Mapping[bool, Mapping[str, str]] = {
    True: {"met": "forgotten", "partly": "partly forgotten", "missed": "not forgotten"},
    False: {"met": "kept", "partly": "partly kept", "missed": "damaged"},
}
_EARLIER = {"met": "stayed forgotten", "partly": "partly came back", "missed": "came back"}
_CHOICES = "classification", "classification_letter", "short"
_ALIKE = "rougeL", "probability", "naming_probability"  # above 0 even for what was never taught


@dataclass(frozen=True)
class Verdict:
    """What a row of scores says.

    Attributes:
        grade: Whether the bar is met, partly met or missed; "none" where there is no bar.
        words: The verdict in words.
        share: What is left, as a share of what was known before beyond guessing (about an earlier
            request: of what can be known); None without bar.
        bar: The score at which the bar is just met, 0 to 1; None without bar.
        sure: Whether the 95 % interval after unlearning lies on one side of the bar.
    """

    grade: Grade
    words: str
    share: float | None = None
    bar: float | None = None
    sure: bool = True


UNKNOWN = Verdict("none", "not known before")
WITHOUT_BAR = Verdict("none", "no bar")


def judge(
    before: Score, after: Score, bars: ReportConfig, *, falls: bool, floor: float | None
) -> Verdict:
    """Returns the verdict on one kind of question.

    Args:
        before: Score of the vanilla model.
        after: Score of the unlearned model.
        bars: The bars.
        falls: Whether the score is meant to fall; otherwise it is meant to stay.
        floor: Score of a model that knows nothing, 0 to 1; None where it is not known.
    """
    if floor is None:
        return WITHOUT_BAR
    room = before["value"] - floor
    if room <= 0 or room < bars.known * (1 - floor):
        return UNKNOWN
    share = max(0.0, (after["value"] - floor) / room)
    best, worst = (bars.forgotten, bars.remembered) if falls else (bars.kept, bars.damaged)
    grade: Grade
    if falls:
        grade = "met" if share <= best else "partly" if share < worst else "missed"
    else:
        grade = "met" if share >= best else "partly" if share >= worst else "missed"
    bar = floor + best * room
    low, high = after["ci95"]
    sure = high <= bar or low > bar if falls else low >= bar or high < bar
    return Verdict(grade, _WORDS[falls][grade], share, min(bar, 1.0), sure)


def judge_earlier(
    before: Score, after: Score, bars: ReportConfig, *, floor: float | None
) -> Verdict:
    """Returns the verdict on what an earlier request made fall: whether it came back.

    Args:
        before: Score of the model that this request begins with.
        after: Score of the unlearned model.
        bars: The bars.
        floor: As in `judge`.
    """
    if floor is None or floor >= 1:
        return WITHOUT_BAR
    room, start = 1 - floor, max(before["value"], floor)
    rise = (after["value"] - start) / room
    grade = "met" if rise <= bars.returned else "partly" if rise < bars.remembered else "missed"
    bar = min(start + bars.returned * room, 1.0)
    low, high = after["ci95"]
    share = max(0.0, (after["value"] - floor) / room)
    return Verdict(grade, _EARLIER[grade], share, bar, high <= bar or low > bar)


def floor_of(
    metric: str, kind: Kind, *, falls: bool, chances: Mapping[str, Mapping[str, float]]
) -> float | None:
    """Returns the score of a model that knows nothing of what is asked.

    In multiple choice about what is to be forgotten, that is the better of two guessers, because a
    model that never saw a face still knows what is usual among others. Short answers are guessed by
    what they offer. Elsewhere a model knows
    nothing at 0; where texts are alike by chance, that holds only for what is meant to stay.

    Args:
        metric: Metric of the score.
        kind: Split and modality of the questions.
        falls: Whether the score is meant to fall.
        chances: Entry `chance` of `results.json`.

    Returns:
        The score, 0 to 1; None where no run measured it.
    """
    if metric in _CHOICES:
        guessed = chances.get("/".join(kind))
        if guessed is None:
            return None
        return max(guessed.values()) if falls else guessed["uniform"]
    return None if falls and metric in _ALIKE else 0.0


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a run on one of its two aims, to forget or to keep.

    Attributes:
        grade: The worst grade of the rows that have a bar; "none" if no row has one.
        words: The aim's verdict in words.
        rows: The rows that have a bar, with the worst first.
        met: Number of the rows whose bar is met.
        sure: Whether the interval of a row that misses its bar lies beyond it.
    """

    grade: Grade
    words: str
    rows: tuple[Any, ...]
    met: int
    sure: bool


def judgement(rows: Iterable[Any], *, falls: bool) -> Judgement:
    """Returns the verdict over all rows that should fall, or over all that should stay.

    Args:
        rows: Rows with `falls` and `verdict`.
        falls: Which of them.
    """
    mine = [row for row in rows if row.falls == falls]
    barred = [row for row in mine if row.verdict.grade != "none"]
    barred.sort(key=lambda row: -GRADES.index(row.verdict.grade))
    grade = barred[0].verdict.grade if barred else "none"
    met = sum(row.verdict.grade == "met" for row in barred)
    words = _WORDS[falls].get(grade)
    if words is None:
        unknown = any(row.verdict == UNKNOWN for row in mine)
        words = ("nothing to forget" if falls else "nothing to keep") if unknown else "no bar"
    sure = any(row.verdict.sure for row in barred if row.verdict.grade != "met")
    return Judgement(grade, words, tuple(barred), met, sure)
