"""The end of an unlearning run by `config.unlearn.stop_by="named"`: the name is hardly said."""

from collections.abc import Callable, Sequence
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
    is said no longer, but preferred to others, is not forgotten. No scored question is asked.

    Args:
        session: Session of the run.

    Returns:
        A function of (parameters, iterations, forget steps). It returns the larger of two shares,
        0 to 1: that of free answers that have the name, and that of right choices beyond guessing;
        and whether it is `config.unlearn.stop_remembered` or less.

    Raises:
        InputError: No answer of the forget set has a name.
    """
    options, names = session.config.unlearn, session.bench.names()
    samples = [s for s in session.pictures(session.forget) if _is_named(s.answer, s, names)]
    if not samples:
        raise InputError(
            "config.unlearn.stop_by is 'named', but no training answer of the forget set has the"
            " person's name; give 'exact' or 'probability'"
        )
    chosen = session.drawn(samples, options.stop_examples)
    questions = [_free(sample) for sample in chosen]
    if len({*names.values()}) >= _OPTIONS:
        rng = np.random.default_rng(session.config.seed)
        questions += [_choice(s, names[s.person], [*{*names.values()}], rng) for s in chosen]
    answerer = session.answerer()

    def watch(params: Any, iterations: int, forget_steps: int) -> tuple[float, bool]:
        lines = answerer.answer(params, questions, split="named", label=f"step {iterations}")
        pairs = zip(lines, chosen, strict=False)  # the free answers
        left = float(np.mean([_is_named(line["response"], s, names) for line, s in pairs]))
        if choices := [line["correct"] for line in lines if line["options"]]:
            left = max(left, (float(np.mean(choices)) - 1 / _OPTIONS) / (1 - 1 / _OPTIONS))
        return left, left <= options.stop_remembered

    return watch


def _is_named(answer: str, sample: Sample, names: dict[str, str]) -> bool:
    return sample.person in names and has_words(answer, names[sample.person])


def _free(sample: Sample) -> Question:
    return Question(
        sample.person, "vqa", "generation", sample.image, sample.question, sample.answer
    )


def _choice(sample: Sample, name: str, names: Sequence[str], rng: np.random.Generator) -> Question:
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
