"""Paraphrases: the same question in words that no one has taught or scored."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Target
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


def reworded(questions: Sequence[str], file: str) -> dict[str, list[str]]:
    """Returns rewordings of questions, each other than all questions.

    Args:
        questions: The wordings that are taught or scored.
        file: Path of a JSON file with rewordings; "": all are made by rule.

    Raises:
        InputError: The file is missing or damaged, or a rewording is one of the questions.
    """
    kept: Mapping[str, Sequence[str]] = {}
    if file:
        with refusing(file, _MEND):
            kept = json.loads(Path(file).read_text())
            if not all(isinstance(text, str) for texts in kept.values() for text in texts):
                raise ValueError("a rewording is no text")
    known = {*questions}
    if same := known & {text for texts in kept.values() for text in texts}:
        raise InputError(f"{file}: {min(same)!r} is a question that is scored; reword it")
    made = {}
    for question in known:
        texts = kept.get(question) or [rule(question) for rule in RULES]
        made[question] = [text for text in dict.fromkeys(texts) if text not in known]
    return made


def _attacked(
    target: Target, params: Any, label: str, options: ParaphrasesConfig
) -> Iterator[tuple[str, np.ndarray]]:
    texts = reworded([question.question for question in target.questions], options.file)
    for number in range(max(map(len, texts.values()))):
        questions = [
            dataclasses.replace(q, question=of[number]) if number < len(of) else None
            for q in target.questions
            for of in [texts[q.question]]
        ]
        yield f"rewording {number + 1}", target.answers(params, questions, f"{label}, {number + 1}")


ATTACK = Attack(
    "Paraphrases",
    "The question is put in other words; the rewording that brings most back counts.",
    _attacked,
    ParaphrasesConfig,
)
