"""Paraphrases: the same question in words that no one has taught or scored."""

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.options import Section, option

_MEND = "give {QUESTION: [REWORDING, ...]}"
_SHOWN = re.compile(r"\b(?:this|the) (person|man|woman|country|flag|individual)\b", re.IGNORECASE)
RULES = (
    lambda question: _SHOWN.sub(r"the \1 that you see here", question),
    lambda question: _SHOWN.sub(r"the \1 in the attached photograph", question),
    lambda question: f"Have a look at the photograph. {question}",
    lambda question: f"{question} Judge by the photograph alone.",
    lambda question: f"Somebody wants to know: {question[:1].lower()}{question[1:]}",
    lambda question: "Here is my question. " + _SHOWN.sub(r"the pictured \1", question),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParaphrasesConfig(Section):
    """Options of the attack `paraphrases`."""

    key: ClassVar[str] = "audit.paraphrases"

    file: str = option(
        "",
        "JSON file with rewordings of each question, `{QUESTION: [REWORDING, ...]}`; questions that"
        " are missing there are reworded by rule.",
        special='"": all by rule',
    )


def reworded(
    questions: Sequence[str], file: str, taught: Collection[str] = ()
) -> dict[str, list[str]]:
    """Returns rewordings of questions, none of which is scored or taught.

    Args:
        questions: The wordings that are scored.
        file: Path of a JSON file with rewordings; "": all are made by rule.
        taught: Wordings that are taught.

    Raises:
        InputError: The file is missing or damaged, a rewording is scored or taught, or a key of the
            file is no question.
    """
    kept = read_rewordings(file) if file else {}
    known = {*questions, *taught}
    if same := known & {text for texts in kept.values() for text in texts}:
        raise InputError(f"{file}: {min(same)!r} is a question that is scored or taught; reword it")
    if unknown := kept.keys() - {*questions}:
        raise InputError(f"{file}: {min(unknown)!r} is no question about the forgotten people")
    made = {}
    for question in {*questions}:
        texts = kept.get(question) or [rule(question) for rule in RULES]
        made[question] = [text for text in dict.fromkeys(texts) if text not in known]
    return made


def read_rewordings(file: str) -> Mapping[str, Sequence[str]]:
    """Returns the rewordings of a file, by question.

    Raises:
        InputError: The file is missing or damaged.
    """
    with refusing(file, _MEND):
        kept = json.loads(Path(file).read_text())
        if not all(isinstance(text, str) for texts in kept.values() for text in texts):
            raise ValueError("a rewording is no text")
        return kept


def _attacked(
    target: Target, params: Any, options: ParaphrasesConfig
) -> Iterator[tuple[str, np.ndarray]]:
    texts = _reworded(target, options)
    for number in range(max(map(len, texts.values()))):
        # A question with fewer rewordings is put in the first ones again.
        questions = [
            dataclasses.replace(q, question=of[number % len(of)])
            for q in target.questions
            for of in [texts[q.question]]
        ]
        yield f"rewording {number + 1}", target.answers(params, questions, f"{number + 1}")


def _reworded(target: Target, options: ParaphrasesConfig) -> dict[str, list[str]]:
    taught = {sample.question for sample in target.session.pictures(target.session.forget)}
    return reworded([q.question for q in target.questions], options.file, taught)


def _lacks(target: Target, options: ParaphrasesConfig) -> str:
    bare = [question for question, texts in _reworded(target, options).items() if not texts]
    return f"{bare[0]!r} has no rewording" if bare else ""


ATTACK = Attack(
    "Paraphrases",
    "The question is put in other words; the rewording that brings most back counts.",
    _attacked,
    lambda _: Cost(len(RULES)),
    ParaphrasesConfig,
    lacks=_lacks,
)
