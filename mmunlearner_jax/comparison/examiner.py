"""What the models of a comparison are asked: while they unlearn, and at the end."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.chance import Prior
from mmunlearner_jax.evaluation.kinds import FORGET, OPEN
from mmunlearner_jax.evaluation.likelihoods import Line
from mmunlearner_jax.evaluation.perplexity import kept_text, perplexity
from mmunlearner_jax.evaluation.plain_text import plain_batch
from mmunlearner_jax.evaluation.questions import general_questions
from mmunlearner_jax.evaluation.selection import chosen_by, set_apart
from mmunlearner_jax.evaluation.short_answers import collapsed, credit
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import batch_parts

# By kind "SPLIT/MODALITY": mean accuracy and number of questions, by person.
Accuracies = dict[str, dict[str, tuple[float, int]]]
_APART = 0  # seed of what is set apart
FORGET_KIND = "/".join(FORGET)


class Examiner:
    """Asks models the questions set apart, and the scored ones.

    Args:
        session: Session of the run.

    Raises:
        InputError: No picture of the forget set, or nothing that is to be kept, is set apart.
    """

    def __init__(self, session: Session):
        self._session, self._answerer = session, session.answerer()
        options = session.config.compare
        # By a fixed seed, so that all stages of a run set the same questions apart.
        apart, scored = set_apart(session.questions(), options.apart, seed=_APART)
        apart = _of_tasks(apart, ("classification",))
        self._prior = Prior(apart.get("retain", ()), session.bench.names())
        self._looked = _looked(apart, options.look_questions)
        tasks = {*options.tasks} - {"classification"}
        self._scored = {
            split: [q for q in qs if q.task == "classification" or (q.accepted and q.task in tasks)]
            for split, qs in scored.items()
        }
        # General ability chooses no settings.
        self._scored |= general_questions(session.config, session.bench.check)
        self._unjudged = {
            split: [q for q in qs if q.task in tasks and not q.accepted]
            for split, qs in scored.items()
        }
        self.to_keep = ["/".join(kind) for kind in chosen_by(session.kinds)]
        looked_at = {f"{split}/{q.modality}" for split, qs in self._looked.items() for q in qs}
        for kind, what in (
            ({FORGET_KIND}, "picture of the forget set"),
            (
                {*self.to_keep},
                "multiple-choice question about what is to be kept",
            ),
        ):
            if not kind & looked_at:
                raise InputError(
                    f"config.compare.apart={options.apart} sets no {what} apart to follow runs by:"
                    " give a larger fraction, or more config.evaluate.splits"
                )

    def chance(self) -> float:
        """Returns what guessing a retained person gives on the forget set's pictures, 0 to 1."""
        pictures = [q for q in self._looked[FORGET[0]] if q.modality == FORGET[1]]
        return self._prior.chance(pictures).prior

    def look(self, params: Any, label: str) -> dict[str, float]:
        """Returns a model's accuracy on the questions set apart, by kind "SPLIT/MODALITY".

        Args:
            params: All parameters of the model.
            label: Name of the model beside the progress bar.

        Raises:
            Diverged: A log-probability is not finite.
        """
        answers = accuracies(self._ask(params, self._looked, "apart", label))
        return {kind: overall(people)[0] for kind, people in answers.items()}

    def scored(self, params: Any, label: str, *, forgotten: bool = False) -> list[Line]:
        """Returns a model's answers to the scored questions of which an answer is right or wrong.

        These are multiple choice and open questions with accepted answers.

        Args:
            params: All parameters of the model.
            label: Name of the model beside the progress bar.
            forgotten: Whether only the kinds that are to fall are asked.
        """
        kinds = self._session.kinds
        questions = {
            split: [q for q in qs if not forgotten or kinds[split, q.modality].falls]
            for split, qs in self._scored.items()
        }
        return self._ask(params, questions, "scored", label)

    def score(self, params: Any, name: str, lines: Sequence[Line]) -> dict[str, Any]:
        """Writes the open answers as `compare/predictions/NAME-SPLIT.jsonl`.

        Args:
            params: All parameters of the model.
            name: Name of the model.
            lines: Its answers to the scored questions.

        Returns:
            `perplexity`: of the retained people's taught text, and with
            `config.compare.plain_text` `plain_perplexity`.

        Raises:
            Diverged: A likelihood is not finite.
        """
        session = self._session
        lines = [*lines, *self._ask(params, self._unjudged, "open", name)]
        if is_first():
            for split in self._scored:
                opened = [x for x in lines if x["split"] == split and x["task"] != "classification"]
                # Stage `controls` has rows of the same names, and scores all questions.
                file = session.workdir / f"compare/predictions/{name}-{split}.jsonl"
                write_whole(file, "".join(json.dumps(line) + "\n" for line in opened))
        label = f"compare/{name}"
        perplexities = {"perplexity": perplexity(session, params, kept_text(session), label=label)}
        if session.config.compare.plain_text:
            parts = batch_parts(session.mesh.axis_sizes)
            plain = plain_batch(session.encoder.tokenizer, parts)
            perplexities["plain_perplexity"] = perplexity(session, params, [plain], label=label)
        return perplexities

    def _ask(
        self, params: Any, questions: Mapping[str, Sequence[Question]], what: str, label: str
    ) -> list[Line]:
        """Returns the answers to questions of all splits, which are answered together."""
        together = [(split, q) for split, of_split in questions.items() for q in of_split]
        lines = self._answerer.answer(params, [q for _, q in together], split=what, label=label)
        splits = (split for split, _ in together)
        return [line | {"split": s} for line, s in zip(lines, splits, strict=True)]


def accuracies(lines: Iterable[Mapping[str, Any]]) -> Accuracies:
    """Returns the accuracy by kind and person, of multiple choice and of open answers apart.

    Args:
        lines: Scored predictions; open answers without accepted ones do not count. Of a short
            answer, which may be right in part, the credit counts.
    """
    right: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in collapsed(lines):
        kind = f"{line['split']}/{line['modality']}"
        if line["task"] == "classification":
            right[kind][line["person"]].append(line["correct"])
        elif line["task"] == "short":
            right[kind][line["person"]].append(credit(line))
        elif "right" in line:
            right[kind + OPEN][line["person"]].append(line["right"])
    return {
        kind: {person: (sum(x) / len(x), len(x)) for person, x in people.items()}
        for kind, people in right.items()
    }


def overall(people: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    """Returns the accuracy on all questions of a kind, and their number.

    Args:
        people: Accuracy and number of questions, by person.
    """
    values, counts = zip(*people.values(), strict=True)
    return float(np.average(values, weights=counts)), int(sum(counts))


def _looked(apart: Mapping[str, Sequence[Question]], most: int) -> dict[str, list[Question]]:
    """Returns all pictures of the forget set, and at most so many questions of each other kind."""
    kinds: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for split, of_split in apart.items():
        for question in of_split:
            kinds[split, question.modality].append(question)
    looked: dict[str, list[Question]] = defaultdict(list)
    for kind, of_kind in kinds.items():
        order = np.random.default_rng(_APART).permutation(len(of_kind))
        chosen = range(len(of_kind)) if kind == FORGET else sorted(order[:most])
        looked[kind[0]] += [of_kind[n] for n in chosen]
    return looked


def _of_tasks(
    questions: Mapping[str, Sequence[Question]], tasks: Iterable[str]
) -> dict[str, list[Question]]:
    return {
        split: [q for q in of_split if q.task in tasks] for split, of_split in questions.items()
    }
