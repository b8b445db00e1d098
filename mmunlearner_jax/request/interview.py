"""Asks the vanilla model what it knows, before anything is written."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax import nnx

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.loading import load_model
from mmunlearner_jax.request.sets import Answers, Pair, Subject
from mmunlearner_jax.session import Session


class Asked(NamedTuple):
    """What a model has said.

    Attributes:
        answers: Its free answers, by picture and question.
        seconds: Seconds of a question, the compilation included.
    """

    answers: Answers
    seconds: float


def ask(config: Config, pairs: Sequence[Pair]) -> Asked:
    """Asks the model of `config.model.checkpoint`; writes nothing.

    Args:
        config: Config of the run.
        pairs: Pictures, or None, and questions.

    Raises:
        InputError: The checkpoint cannot be read, or the model cannot take a picture.
    """
    session = Session(config, Path(), config.model.checkpoint)
    encoder, options = session.encoder, config.evaluate.decode
    for picture in dict.fromkeys(picture for picture, _ in pairs if picture is not None):
        encoder.image_tokens(picture)  # a picture that the model cannot take is refused here
    model = load_model(config, config.model.checkpoint, session.mesh)
    graphdef, params = nnx.split(model)
    answerer = Answerer(
        graphdef,
        encoder,
        session.mesh,
        protocol("plain", MLLMU, encoder, model.config.model_type),
        positions=model.config.text.max_position_embeddings,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
    )
    questions = [
        Question("", "qa" if picture is None else "vqa", "generation", picture, text, "unknown")
        for picture, text in pairs
    ]
    begin = time.monotonic()
    lines = answerer.answer(params, questions, split="what it knows", label="asking")
    seconds = (time.monotonic() - begin) / max(1, len(pairs))
    said = (line["response"].strip() for line in lines)
    return Asked(dict(zip(pairs, said, strict=True)), seconds)


def refuse_unknown(person: Subject, named: int) -> None:
    """Refuses to forget a face that the model does not know.

    Args:
        person: The person, with what the model knows (`sets.known`).
        named: Photographs on which it names the person.

    Raises:
        InputError: It names the person on no photograph that steps learn from.
    """
    if not named:
        raise InputError(
            f"--name={person.name!r}: the model names the person on none of"
            f" {len(person.pictures)} photographs, so there is nothing to forget; give the name as"
            " the model writes it, or its checkpoint"
        )
    if not person.is_named:
        raise InputError(
            f"--name={person.name!r}: the model names the person only on photographs that are set"
            " apart; give more photographs, or another --config.seed"
        )
