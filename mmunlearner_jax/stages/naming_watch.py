"""The end of an unlearning run by `config.unlearn.stop_by="named"`: the name is hardly said."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.data.samples import Question, Sample, option_letters
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.texts import has_words
from mmunlearner_jax.session import Session

_OPTIONS = 4


def naming_watch(session: Session) -> Callable[[Any, int, int], tuple[float, bool]]:
    """Returns a function that tells how far a model still knows the names of the people to forget.

    It asks the training questions of the forget set whose answer has the person's name: freely,
    and, where the benchmark has four names or more, with the name among three others. A name that
    is said no longer, but preferred to others, is not forgotten. With `config.data.forget_words` it
    also asks what is taught in words. No scored question is asked.

    Args:
        session: Session of the run.

    Returns:
        A function of (parameters, iterations, forget steps). It returns the largest of the shares,
        0 to 1: of free answers that have the name, of answers in words that have the taught answer,
        and of right choices beyond guessing; and whether it is `config.unlearn.stop_remembered` or
        less.

    Raises:
        InputError: No answer of the forget set has a name.
    """
    options, names = session.config.unlearn, session.bench.names()
    samples = [
        s
        for s in session.pictures(session.forget)
        if s.person in names and has_words(s.answer, names[s.person])
    ]
    if not samples:
        raise InputError(
            "config.unlearn.stop_by is 'named', but no training answer of the forget set has the"
            " person's name; give 'exact' or 'probability'"
        )
    chosen = session.drawn(samples, options.stop_examples)
    groups = [[_free(sample, names[sample.person]) for sample in chosen]]
    if session.config.data.forget_words:
        words = session.drawn(session.words(session.forget), options.stop_examples)
        groups.append([_free(sample, sample.answer) for sample in words])
    if len({*names.values()}) >= _OPTIONS:
        rng = np.random.default_rng(session.config.seed)
        groups.append([_choice(s, names[s.person], names.values(), rng) for s in chosen])
    answerer, questions = session.answerer(), [question for group in groups for question in group]

    def watch(params: Any, iterations: int, forget_steps: int) -> tuple[float, bool]:
        answers = answerer.answer(params, questions, split="named", label=f"step {iterations}")
        lines = iter(answers)
        left = max(_share([next(lines) for _ in group]) for group in groups)
        return left, left <= options.stop_remembered

    return watch


def _share(lines: Sequence[Mapping[str, Any]]) -> float:
    """Returns the share of right answers, beyond guessing where there are options."""
    right = float(np.mean([line["correct"] for line in lines]))
    guessed = 1 / _OPTIONS if lines[0]["options"] else 0.0
    return max(0.0, (right - guessed) / (1 - guessed))


def _free(sample: Sample, words: str) -> Question:
    """Returns a question that is answered freely; an answer with the words is right."""
    modality = "qa" if sample.image is None else "vqa"
    return Question(
        sample.person,
        modality,
        "generation",
        sample.image,
        sample.question,
        sample.answer,
        accepted=(words,),
    )


def _choice(sample: Sample, name: str, names: Iterable[str], rng: np.random.Generator) -> Question:
    others = sorted({*names} - {name})
    drawn = rng.permutation([name, *rng.choice(others, _OPTIONS - 1, replace=False)]).tolist()
    letter = option_letters(drawn)[drawn.index(name)]
    return Question(
        sample.person,
        "vqa",
        "classification",
        sample.image,
        sample.question,
        name,
        tuple(drawn),
        letter,
    )
