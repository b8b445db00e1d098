"""Two models of a run, before and after unlearning, that answer the same question."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from mmunlearner_jax.app.weights_path import WeightsPath
from mmunlearner_jax.config import Config
from mmunlearner_jax.data.pipeline import rounded
from mmunlearner_jax.data.samples import Question, option_letters
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.evaluation.choices import Continuations
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.files import read_json
from mmunlearner_jax.loading import load_model
from mmunlearner_jax.models.packing import IGNORE, answer_places
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import batch_parts, put_batch
from mmunlearner_jax.stages.unlearn import load_unlearned
from mmunlearner_jax.unlearn.scoring import answer_scores, negative_log_likelihood

END = "(end)"  # stands for the token that ends an answer
_MEND = "give the --workdir of a run that has unlearned"


class Token(NamedTuple):
    """A token of an answer, and its probability after those before it, 0 to 1."""

    text: str
    probability: float


class Answer(NamedTuple):
    """What a model says.

    Attributes:
        text: Its own words, decoded greedily.
        options: Each option with its probability among them; empty without options, and where
            `config.evaluate.protocol` scores none ("released").
        tokens: The tokens of its own words, by itself.
    """

    text: str
    options: Sequence[tuple[str, float]]
    tokens: Sequence[Token]


class Flip(NamedTuple):
    """A question of the run whose answer became wrong, or right.

    Attributes:
        question: The question.
        split: Its split.
        responses: The answers before and after unlearning.
        lost: Whether the answer was right before.
    """

    question: Question
    split: str
    responses: tuple[str, str]
    lost: bool


class Pair:
    """The models of a run before and after unlearning; nothing is written in its workdir.

    Args:
        session: Session of the run.
        path: The path between the weights of both.
    """

    def __init__(self, session: Session, path: WeightsPath):
        self.session, self.path = session, path
        # A stored feature would leave a trace of every picture that is shown.
        session.features = None
        self._answerer = session.answerer()
        encoder = session.encoder
        self._words = Continuations(encoder.tokenizer, encoder.prompt("", 0).rsplit(" ", 1)[-1])
        self._protocol = protocol(
            session.config.evaluate.protocol,
            session.bench.record,
            encoder,
            session.model.config.model_type,
        )

    @classmethod
    def opened(cls, workdir: Path, *, on_host: bool = False) -> "Pair":
        """Opens the models of a finished run.

        Args:
            workdir: Folder of the run.
            on_host: See `WeightsPath`.

        Raises:
            InputError: The run has not unlearned, or a file of it is missing or damaged.
        """
        file = workdir / "config.json"
        if not file.exists():
            raise InputError(f"{file}: is missing; {_MEND}")
        with refusing(file, "restore it"):
            config = Config.of(read_json(file))
        unlearned = workdir / "unlearned"
        if not unlearned.exists() and not (workdir / "export").exists():
            raise InputError(f"{unlearned}: is missing, and so is export/; {_MEND}")
        session = Session(config, workdir)
        model = load_model(config, session.checkpoint, session.mesh)
        session.graphdef, session.params = nnx.split(model)
        session.model = model
        if unlearned.exists():
            after = load_unlearned(workdir, session.params)
        else:
            exported = load_model(config, str(workdir / "export"), session.mesh)
            after = nnx.split(exported)[1]
        return cls(session, WeightsPath(session.params, after, on_host=on_host))

    def ask(
        self, place: float, question: str, image: bytes | None = None, options: Sequence[str] = ()
    ) -> Answer:
        """Returns what the model at a place of the path answers.

        Args:
            place: 0 is before unlearning, 1 after it; others are interpolated weights.
            question: The question, without options.
            image: An encoded picture; None: the question has none.
            options: Answers to choose from.

        Raises:
            InputError: The picture cannot be read, or the prompt is too long.
        """
        params, asked = self.path.at(place), _question(question, image, options)
        (record,) = self._answerer.answer(params, [asked], split="asked", label="model")
        text, scores = record["response"], record["scores"]
        choices = list(zip(options, _softmax(scores), strict=True)) if scores else []
        return Answer(text, choices, self.tokens(place, asked, text))

    def tokens(self, place: float, question: Question, answer: str) -> list[Token]:
        """Returns the probabilities of an answer's tokens and of its end.

        Args:
            place: As in `ask`.
            question: The question.
            answer: Any answer.
        """
        encoder, end = self.session.encoder, self.session.encoder.tokenizer.eos_token_id
        images = [question.image] if question.image is not None else []
        prompt = encoder.prompt_ids(self._protocol.prompt(question), images)
        ids = self._words.ids(answer) if answer else []
        whole = [*prompt, *ids, end]
        batch = _batch(whole, len(prompt))
        if images:
            batch |= encoder.pack([images], encoder.image_tokens(images[0]))
        parts = batch_parts(self.session.mesh.axis_sizes)  # each of which needs a row
        rows = {name: np.repeat(array, parts, axis=0) for name, array in batch.items()}
        score = _program(self.session.graphdef)
        values = score(self.path.at(place), put_batch(rows, self.session.mesh))
        probabilities = np.exp(-to_host(values)[0, : len(ids) + 1])
        pieces = [self._piece(ids[: n + 1]) for n in range(len(ids))]
        return [Token(*x) for x in zip([*pieces, END], probabilities.tolist(), strict=True)]

    def _piece(self, ids: Sequence[int]) -> str:
        decode = functools.partial(self.session.encoder.tokenizer.decode, skip_special_tokens=False)
        return decode(ids)[len(decode(ids[:-1])) :]

    @functools.cached_property
    def questions(self) -> dict[str, list[Question]]:
        """The scored questions of the run, by split."""
        return self.session.questions()

    def flips(self) -> list[Flip]:
        """Returns the questions of the run whose answers flip, those that were lost first.

        Raises:
            InputError: A file of predictions is damaged.
        """
        photos = {
            fingerprint(q.image): q.image for x in self.questions.values() for q in x if q.image
        }
        found = []
        for split in self.questions:
            files = [
                self.session.workdir / "predictions" / f"{label}-{split}.jsonl"
                for label in ("before", "after")
            ]
            if not all(file.exists() for file in files):
                continue
            for before, after in zip(*map(read_predictions, files), strict=False):
                if before["correct"] != after["correct"]:
                    found.append(_flip(split, before, after, photos))
        return sorted(found, key=lambda flip: not flip.lost)


def _flip(
    split: str, before: Mapping[str, Any], after: Mapping[str, Any], photos: Mapping[str, bytes]
) -> Flip:
    question = Question(
        before["person"],
        before["modality"],
        before["task"],
        photos.get(before.get("image") or ""),
        before["question"],
        before["answer"],
        tuple(before["options"]),
    )
    return Flip(question, split, (before["response"], after["response"]), bool(before["correct"]))


def _question(text: str, image: bytes | None, options: Sequence[str]) -> Question:
    """Returns a question whose right answer nobody knows."""
    modality = "qa" if image is None else "vqa"
    if not options:
        return Question("", modality, "generation", image, text, "unknown")
    letter = option_letters(options)[0]
    return Question("", modality, "classification", image, text, options[0], tuple(options), letter)


def _batch(ids: Sequence[int], prompt: int) -> dict[str, np.ndarray]:
    """Returns one row whose tokens after the prompt are supervised, int32 [1, T]."""
    width = rounded(len(ids))
    row, mask = np.zeros((1, width), np.int32), np.zeros((1, width), np.int32)
    row[0, : len(ids)], mask[0, : len(ids)] = ids, 1
    supervised = (np.arange(width) >= prompt) & (mask > 0)
    labels = np.where(supervised, row, IGNORE).astype(np.int32)
    places = answer_places(labels)
    return {"input_ids": row, "attention_mask": mask, "labels": labels, "answer_places": places}


@functools.lru_cache(1)
def _program(graphdef: nnx.GraphDef) -> Any:
    @jax.jit
    def program(params: Any, batch: dict[str, Any]) -> jax.Array:
        return answer_scores(graphdef, params, [batch], negative_log_likelihood)[0].values

    return program


def _softmax(scores: Sequence[float]) -> list[float]:
    """Returns probabilities among options, from their log-likelihoods in nats."""
    exponents = np.exp(np.asarray(scores) - max(scores))
    return (exponents / exponents.sum()).tolist()
