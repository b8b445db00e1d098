"""What guessing gives: by the number of options, and by what a model knows of other people.

A model that never saw a face can still know what is usual. If it answers with the fact of a person
whom it does know, its accuracy depends on how common each option is among these people, and is
seldom one over the number of options.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmunlearner_jax.data.samples import Question

_WHO = "{who}"  # stands for the name of the person that a wording is about


class Chance(NamedTuple):
    """Expected accuracies of two guessers on the same questions, 0 to 1.

    Attributes:
        uniform: Of a guesser that takes any option: the mean of 1 over the number of options.
        prior: Of a guesser that takes the fact of a retained person, drawn from all whose fact is
            among the options.
    """

    uniform: float
    prior: float


class Prior:
    """How often each answer holds among the retained people, for each wording of a question.

    Args:
        retained: Multiple-choice questions about the retained people.
        names: Name of each person, by ID.
    """

    def __init__(self, retained: Sequence[Question], names: Mapping[str, str]):
        self._names = names
        facts = {(self._wording(q), q.person, q.answer) for q in retained if q.options}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for wording, _, answer in facts:  # several photographs of a person count once
            self._counts[wording][answer] += 1

    def _wording(self, question: Question) -> str:
        name = self._names.get(question.person)
        return question.question.replace(name, _WHO) if name else question.question

    def accuracy(self, question: Question) -> float:
        """Returns the probability that the guesser takes the right option.

        It is 1 over the number of options where no retained person is asked in the same words, or
        no option holds for any of them.
        """
        counts = self._counts.get(self._wording(question), Counter())
        among = sum(counts[option] for option in question.options)
        return counts[question.answer] / among if among else 1 / len(question.options)

    def chance(self, questions: Sequence[Question]) -> Chance:
        """Returns what guessing gives on some multiple-choice questions, at least one."""
        uniform = np.mean([1 / len(question.options) for question in questions])
        return Chance(float(uniform), float(np.mean([self.accuracy(q) for q in questions])))


def chances(
    questions: Mapping[str, Sequence[Question]], names: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Returns `{"forget/vqa": {"uniform": x, "prior": x}}`, for each kind with multiple choice.

    Also for short answers (general ability), where both are the mean of `short_chance`.

    Args:
        questions: Scored questions by split. Those of the split `retain` are the prior.
        names: Name of each person, by ID.
    """
    prior = Prior(questions.get("retain", ()), names)
    kinds: dict[str, list[Question]] = defaultdict(list)
    short: dict[str, dict[str, float]] = defaultdict(dict)
    for split, of_split in questions.items():
        for number, question in enumerate(of_split):
            kind = f"{split}/{question.modality}"
            if question.task == "short":  # rotations of a question count once
                short[kind][question.group or str(number)] = short_chance(question)
            elif question.options:
                kinds[kind].append(question)
    of_choices = {kind: prior.chance(of_kind)._asdict() for kind, of_kind in kinds.items()}
    means = {kind: float(np.mean([*of_kind.values()])) for kind, of_kind in short.items()}
    return of_choices | {kind: Chance(mean, mean)._asdict() for kind, mean in means.items()}


def short_chance(question: Question) -> float:
    """Returns how probable it is that a guesser gives the right short answer, 0 to 1.

    It takes any option, or says yes or no; of rotated options all guesses must be right. Where
    nothing is offered, it knows nothing.
    """
    if question.rule == "yes_no":
        return 1 / 2
    count = len(question.options)
    return (1 / count) ** (count if question.group else 1) if count else 0.0
