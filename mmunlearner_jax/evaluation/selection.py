"""Questions set apart to choose a method's settings by, which are then never scored."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.kinds import Kinds

Questions = dict[str, list[Question]]
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]


def set_apart(
    questions: Mapping[str, Sequence[Question]], fraction: float, seed: int
) -> tuple[Questions, Questions]:
    """Divides questions into those that settings are chosen by and those that are scored.

    All questions about a picture fall on one side, in whatever split they are; a question in words
    is by itself. Of everybody's pictures, and of the questions in words, the fraction is drawn; a
    part of one that is left over is drawn, too, so that people with one picture have their share.

    Args:
        questions: by split.
        fraction: in (0, 1), for choosing.
        seed: of what is drawn.

    Returns:
        Questions to choose by, and questions to score, both by split and in their order.
    """
    units: dict[tuple[str, str, str], dict[Any, None]] = defaultdict(dict)
    first: dict[Any, str] = {}  # split in which a picture or wording is met first
    for split, asked in questions.items():
        for question in asked:
            unit = _unit(question)
            split_of = first.setdefault(unit, split)
            units[split_of, question.person, question.modality][unit] = None
    rng = np.random.default_rng(seed)
    drawn = set()
    for there in units.values():
        count = int(fraction * len(there) + rng.random())
        drawn.update(list(there)[n] for n in rng.permutation(len(there))[:count])
    choosing, scored = (
        {
            split: [q for q in asked if (_unit(q) in drawn) == side]
            for split, asked in questions.items()
        }
        for side in (True, False)
    )
    return choosing, scored


def _unit(question: Question) -> tuple[str, bytes | str]:
    return question.person, question.image or question.question


def kept(scores: Scores, kinds: Kinds) -> float:
    """Mean accuracy over the kinds to choose by that were asked, each counting alike.

    Args:
        scores: multiple choice, by split and modality.
        kinds: of the questions; `ScoredKind.chosen_by` tells which count.
    """
    counted = [scores.get(split, {}).get(modality) for split, modality in chosen_by(kinds)]
    return float(np.mean([score["value"] for score in counted if score]))


def chosen_by(kinds: Kinds) -> list[Kind]:
    """The kinds whose multiple choice counts in the mean of what is to stay."""
    return [kind for kind, about in kinds.items() if about.chosen_by]


def preference(scores: Scores, forgotten: float, kinds: Kinds) -> tuple[bool, float]:
    """The rule by which settings are chosen; the greatest is.

    Settings that forget enough come before others; among those what is kept decides, among the
    others what is left to forget.

    Args:
        scores: multiple choice about what is set apart, by split and modality.
        forgotten: accuracy about the forget set's pictures at which enough is forgotten.
        kinds: of the questions.
    """
    left = scores["forget"]["vqa"]["value"]
    return (True, kept(scores, kinds)) if left <= forgotten else (False, -left)
