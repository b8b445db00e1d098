"""What the attacks of an audit share: the questions, the models, and their answers."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.audit.attack import AFTER, BEFORE, GOLD
from mmunlearner_jax.audit.collapse import is_broken
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session, load_model
from mmunlearner_jax.stages.unlearn import load_unlearned


class Auditor:
    """Asks models about the pictures of forgotten people; a `Target` of attacks.

    Args:
        session: Session of the run.

    Raises:
        InputError: There is no question about pictures of the forgotten people, or no model after
            unlearning, or the models differ in shape.
    """

    def __init__(self, session: Session):
        self.session, self._options = session, session.config.audit
        self._attack = ""
        self._held: tuple[str, Any] = "", None
        kinds = session.bench.record.kinds
        falling = {kind for kind, about in kinds.items() if about.falls}
        self.questions = [
            question
            for split, of_split in session.questions().items()
            for question in of_split
            if question.image is not None
            and (split, question.modality) in falling
            and (question.task == "classification" or question.accepted)
        ]
        if not self.questions:
            raise InputError(
                "config.evaluate.splits: no split has questions with pictures of the people to"
                f" forget; name some of {', '.join(sorted({split for split, _ in falling}))}"
            )
        self._answerer = session.answerer()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are there."""
        return (BEFORE, AFTER, *([GOLD] if self._options.gold else []))

    @property
    def before(self) -> Any:
        """Parameters of the model before unlearning."""
        return self.session.params

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

    def of_attack(self, name: str) -> None:
        """Sets the name of the attack that is made next, on which random draws depend."""
        self._attack = name

    def rng(self) -> np.random.Generator:
        """See `Target.rng`."""
        return np.random.default_rng([self.session.config.seed, zlib.crc32(self._attack.encode())])

    def answers(self, params: Any, questions: Sequence[Question | None], label: str) -> np.ndarray:
        """See `Target.answers`."""
        places = [n for n, question in enumerate(questions) if question is not None]
        rights = np.full(len(questions), np.nan)
        rights[places], _ = self._answers(params, [q for q in questions if q is not None], label)
        return rights

    def clean(self, model: str, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns how right a model's answers are without an attack, and whether they are broken.

        Args:
            model: One of `models`.
            label: Name beside the progress bar.

        Returns:
            Two arrays float64 [Q]; the second is 1 where an answer is empty or repeats itself.
        """
        return self._answers(self.params(model), self.questions, label)

    def _answers(
        self, params: Any, questions: Sequence[Question], label: str
    ) -> tuple[np.ndarray, np.ndarray]:
        model, _, attack = label.rpartition("/")
        lines = self._answerer.answer(params, questions, split=attack, label=model)
        # Of an open answer `correct` says whether it has an accepted answer's words.
        rights = np.array([float(line["correct"]) for line in lines])
        return rights, np.array([float(is_broken(line["response"])) for line in lines])

    def _read(self, model: str) -> Any:
        session, options = self.session, self._options
        if model == AFTER and not options.after:
            if not is_done(session.workdir / "unlearned"):
                raise InputError(
                    f"{session.workdir}: has no unlearned model: run the stage unlearn, or set"
                    " config.audit.after to a checkpoint"
                )
            return load_unlearned(session.workdir, session.abstract)
        checkpoint = {AFTER: options.after, GOLD: options.gold}[model]
        params = nnx.split(load_model(session.config, checkpoint, session.mesh))[1]
        ours, theirs = (
            {jax.tree_util.keystr(path): x.shape for path, x in jax.tree.leaves_with_path(tree)}
            for tree in (session.abstract, params)
        )
        if different := sorted({name for name, _ in ours.items() ^ theirs.items()}):
            name = different[0]
            raise InputError(
                f"config.audit.{model}: {checkpoint} is another model than"
                f" {session.checkpoint}: {name} is {theirs.get(name)}, and was {ours.get(name)}"
            )
        tokenizers = [
            (Path(folder) / "tokenizer.json") for folder in (session.checkpoint, checkpoint)
        ]
        if (
            all(file.is_file() for file in tokenizers)
            and len({file.read_bytes() for file in tokenizers}) > 1
        ):
            raise InputError(
                f"config.audit.{model}: the tokenizer of {checkpoint} is another than that of"
                f" {session.checkpoint}: audit models with the same tokenizer"
            )
        return params
