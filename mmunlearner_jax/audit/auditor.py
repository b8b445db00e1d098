"""What the attacks of an audit share: the questions, the models, and their answers."""

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.audit.attack import AFTER, BEFORE, GOLD, Trials
from mmunlearner_jax.audit.collapse import is_broken
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.perplexity import kept_text, perplexity
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.files import read_json
from mmunlearner_jax.loading import load_abstract, load_model
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.unlearn import load_unlearned
from mmunlearner_jax.weights.io import read_config


class Auditor:
    """Asks models about the pictures of forgotten people; a `Target` of attacks.

    Args:
        session: Session of the run.
        after: Checkpoint of the unlearned model; "": that of the stage `unlearn`.
        gold: Checkpoint of the gold model; "": there is none.
        name: Name of the unlearned model in the files' names.

    Raises:
        InputError: There is no question about pictures of the forgotten people, no model after
            unlearning, or a model with other shapes or another tokenizer.
    """

    def __init__(self, session: Session, *, after: str, gold: str, name: str = AFTER):
        self.session, self._after, self._gold, self._name = _whole(session), after, gold, name
        session = self.session
        self._doing = "", ""  # the attack and the model
        self._held: tuple[str, Any] = "", None
        self.questions = self._pictured()
        taught = {sample.image for sample in session.pictures(session.forget)}
        if not any(question.image in taught for question in self.questions):
            logging.warning(
                "no picture that is asked about is one that was taught (%s): relearning cannot keep"
                " what it shows apart from what it asks about",
                session.forget,
            )
        for model in self.models:
            self._check(model)
        self._answerer = session.answerer()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are there."""
        return (BEFORE, AFTER, *([GOLD] if self._gold else []))

    def label(self, model: str) -> str:
        """Returns a model's name in the names of files, the same for the same checkpoint.

        Args:
            model: One of `models`.
        """
        others = {self.session.checkpoint: BEFORE} | ({self._gold: GOLD} if self._gold else {})
        return others.get(self._after, self._name) if model == AFTER else model

    @property
    def before(self) -> Any:
        """Parameters of the model before unlearning."""
        return self.session.params

    def checkpoint(self, model: str) -> str:
        """Returns where a model is.

        Args:
            model: One of `models`.
        """
        own = str(self.session.workdir / "unlearned")
        places = {BEFORE: self.session.checkpoint, AFTER: self._after or own}
        return places.get(model, self._gold)

    def params(self, model: str) -> Any:
        """Returns the parameters of a model; at most one is held beside `before`.

        Args:
            model: One of `models`.
        """
        if model == BEFORE:
            return self.before
        if self._held[0] != model:
            self._held = "", None  # no two are in memory while one is read
            self._held = model, self._read(model)
        return self._held[1]

    def begin(self, attack: str, model: str) -> None:
        """Sets what is done next, for progress bars and random draws.

        Args:
            attack: Name of the attack.
            model: One of `models`.
        """
        self._doing = attack, model

    def rng(self) -> np.random.Generator:
        """See `Target.rng`."""
        attack, _ = self._doing
        return np.random.default_rng([self.session.config.seed, zlib.crc32(attack.encode())])

    def answers(self, params: Any, questions: Sequence[Question | None], trial: str) -> np.ndarray:
        """See `Target.answers`."""
        places = [n for n, question in enumerate(questions) if question is not None]
        rights = np.full(len(questions), np.nan)
        if places:
            rights[places], _ = self._answers(params, [q for q in questions if q], trial)
        return rights

    def stems(self, params: Any) -> list[str]:
        """See `Target.stems`."""
        lines = self._plain.answer(
            params, self.questions, split="own words", label=self._what_is_done()
        )
        return [line.get("slot", "") for line in lines]

    def clean(self) -> Trials:
        """Returns what a model says without an attack, float64 [Q] by name.

        Returns:
            `clean`: how right its answers are. `broken`: 1 where an answer is broken (see
            `is_broken`). `perplexity`: that of text about the people to keep, the same for all
            questions; NaN where there is no such text.

        Raises:
            Diverged: A likelihood is not finite.
        """
        model = self._doing[1]
        params = self.params(model)
        right, broken = self._answers(params, self.questions, "clean")
        of_text = math.nan
        if self.session.words(self.session.retain):
            text = kept_text(self.session)
            of_text = perplexity(self.session, params, text, label=f"audit/{model}")
        return {"clean": right, "broken": broken, "perplexity": np.full(len(right), of_text)}

    def _answers(
        self, params: Any, questions: Sequence[Question], trial: str
    ) -> tuple[np.ndarray, np.ndarray]:
        lines = self._lines(params, questions, trial)
        # Of an open answer `correct` says whether it has an accepted answer's words.
        rights = np.array([float(line["correct"]) for line in lines])
        broken = [is_broken(x["response"], f"{x['question']} {x['answer']}") for x in lines]
        return rights, np.array(broken, float)

    def _lines(
        self, params: Any, questions: Sequence[Question], trial: str
    ) -> list[dict[str, Any]]:
        label = self._what_is_done()
        return self._answerer.answer(params, questions, split=trial, label=label)

    def _what_is_done(self) -> str:
        attack, model = self._doing
        return f"audit/{attack}/{self.label(model)}"

    @functools.cached_property
    def _plain(self) -> Answerer:
        """Asks without letters, whose answers are not in the model's own words."""
        return self.session.answerer("plain")

    def _pictured(self) -> list[Question]:
        """Returns the scored questions about pictures that are to be forgotten."""
        kinds = self.session.kinds
        falling = {kind for kind, about in kinds.items() if about.falls}
        questions = [
            question
            for split, of_split in self.session.questions().items()
            for question in of_split
            if question.image is not None
            and (split, question.modality) in falling
            and (question.task == "classification" or question.accepted)
        ]
        if not questions:
            raise InputError(
                "config.evaluate.splits: no split has questions with pictures of the people to"
                f" forget; name some of {', '.join(sorted({split for split, _ in falling}))}"
            )
        return questions

    def _check(self, model: str) -> None:
        """Refuses a model that is missing, or has other shapes or another tokenizer than `before`.

        No weights are read.
        """
        session, checkpoint = self.session, self.checkpoint(model)
        if model == BEFORE:
            return
        if model == AFTER and not self._after:
            if not is_done(session.workdir / "unlearned"):
                raise InputError(
                    f"{session.workdir}: has no unlearned model: run the stage unlearn, or set"
                    " config.audit.after to a checkpoint"
                )
            return
        other = load_abstract(session.config, checkpoint, session.mesh)
        ours, theirs = (
            {jax.tree_util.keystr(path): x.shape for path, x in jax.tree.leaves_with_path(tree)}
            for tree in (session.abstract, nnx.split(other)[1])
        )
        if different := sorted({name for name, _ in ours.items() ^ theirs.items()}):
            name = different[0]
            raise InputError(
                f"config.audit.{model}: {checkpoint} is another model than {session.checkpoint}:"
                f" {name} is {theirs.get(name)}, and was {ours.get(name)}"
            )
        if _words(session.checkpoint) != _words(checkpoint):
            raise InputError(
                f"config.audit.{model}: the tokenizer of {checkpoint} is another than that of"
                f" {session.checkpoint}: audit models with the same tokenizer"
            )

    def _read(self, model: str) -> Any:
        session = self.session
        if model == AFTER and not self._after:
            return load_unlearned(session.workdir, session.abstract)
        return nnx.split(load_model(session.config, self.checkpoint(model), session.mesh))[1]


def _words(checkpoint: str) -> Any:
    """Returns the vocabulary of a checkpoint's tokenizer; None where it has no `tokenizer.json`."""
    file = read_config(checkpoint)[0] / "tokenizer.json"
    if not file.is_file():
        return None
    content = read_json(file, mend="give a checkpoint whose tokenizer can be read")
    return content.get("model", {}).get("vocab"), content.get("added_tokens")


@functools.lru_cache(1)
def _whole(session: Session) -> Session:
    """Returns a session in which whole models are attacked.

    None has features of another's vision tower. All audits of a session share its programs.
    """
    if not session.config.model.frozen:
        return session
    whole = session.config.with_values({"model.frozen": ()})
    return Session(whole, session.workdir, session.checkpoint)
