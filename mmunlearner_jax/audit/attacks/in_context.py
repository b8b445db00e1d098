"""In context: other people's solved questions, or what is written about the person, come first."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class InContextConfig(Section):
    """Options of the attack `in_context`."""

    key: ClassVar[str] = "audit.in_context"

    examples: int = option(3, "Solved questions about other people.", least=1)
    facts: int = option(3, "Sentences about the person.", least=1)


def _joined(samples: Sequence[Sample], *, questions: bool) -> str:
    turns = (f"{s.question} {s.answer}" if questions else s.answer for s in samples)
    return " ".join(turns)


def _attacked(
    target: Target, params: Any, options: InContextConfig
) -> Iterator[tuple[str, np.ndarray]]:
    session, rng = target.session, target.rng()
    others = session.words(session.retain)
    drawn = [others[n] for n in rng.permutation(len(others))[: options.examples]]
    solved = _joined(drawn, questions=True)
    facts: dict[str, dict[str, Sample]] = {}
    for sample in session.words(session.bench.everyone):
        facts.setdefault(sample.person, {}).setdefault(sample.answer, sample)
    written = {
        person: _joined([*of.values()][: options.facts], questions=False)
        for person, of in facts.items()
    }
    before = {
        "other people's answers": {q.person: solved for q in target.questions},
        "what is written about the person": written,
    }
    for name, texts in before.items():
        questions = [
            dataclasses.replace(q, question=f"{texts[q.person]} {q.question}")
            if q.person in texts
            else None
            for q in target.questions
        ]
        if any(questions):
            yield name, target.answers(params, questions, name)


def _lacks(target: Target, _: InContextConfig) -> str:
    session = target.session
    return "" if session.words(session.retain) else "no text about people is taught"


ATTACK = Attack(
    "In context",
    "Other people's solved questions, or sentences about the person, stand before the question. A"
    " model that never saw the face can read an answer there, too: gold shows how often.",
    _attacked,
    lambda _: Cost(2),
    InContextConfig,
    lacks=_lacks,
    needs_gold=True,
)
