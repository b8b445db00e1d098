"""Questions set apart for the choice of a method's settings, which are then never scored."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.base import Kind
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.kinds import Kinds

Questions = dict[str, list[Question]]


def set_apart(
    questions: Mapping[str, Sequence[Question]], fraction: float, seed: int
) -> tuple[Questions, Questions]:
    """Divides questions into those for choosing settings and those for scoring.

    The units are pictures, with all their questions in all splits, and single questions in words.
    The fraction is drawn from the units of each split, person and modality; its fractional part is
    rounded at random, so that people with a single picture have their share, too.

    Args:
        questions: Questions by split.
        fraction: Fraction of units for choosing settings, in (0, 1).
        seed: Seed of the draw.

    Returns:
        Questions for choosing, and questions for scoring, both by split and in their order.
    """
    units: dict[tuple[str, str, str], dict[Any, None]] = defaultdict(dict)
    first: dict[Any, str] = {}  # the first split with a picture or wording
    for split, of_split in questions.items():
        for question in of_split:
            unit = _unit(question)
            split_of = first.setdefault(unit, split)
            units[split_of, question.person, question.modality][unit] = None
    rng = np.random.default_rng(seed)
    drawn = set()
    for group in units.values():
        count = int(fraction * len(group) + rng.random())
        drawn.update(list(group)[n] for n in rng.permutation(len(group))[:count])
    choosing, scored = (
        {
            split: [q for q in of_split if (_unit(q) in drawn) == side]
            for split, of_split in questions.items()
        }
        for side in (True, False)
    )
    return choosing, scored


def _unit(question: Question) -> tuple[str, bytes | str]:
    return question.person, question.image or question.question


def chosen_by(kinds: Kinds) -> list[Kind]:
    """Returns the kinds whose multiple choice counts in the mean of scores that should stay."""
    return [kind for kind, about in kinds.items() if about.chosen_by]
