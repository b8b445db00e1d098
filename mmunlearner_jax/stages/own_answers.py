"""What the vanilla model answers by itself about the people to forget: samples of anchors."""

import dataclasses
from typing import Literal

from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.texts import has_words
from mmunlearner_jax.session import Session

# What can be asked about any picture of a person without asking who it is.
ABOUT_PICTURES = (
    "What is in the background of this picture?",
    "Which colours does this picture have?",
    "Is this picture taken indoors or outdoors?",
    "What is the light like in this picture?",
    "Where in the picture is the face?",
)


def own_answers(session: Session, about: Literal["words", "pictures"]) -> list[Sample]:
    """Returns questions with the answers that the vanilla model decodes greedily.

    The same model gives the same answers, so a run that goes on after an interruption asks again.

    Args:
        session: Session of the run, with the vanilla model's parameters.
        about: "words": the questions in words about the people to forget. "pictures":
            `ABOUT_PICTURES` about each of their pictures; answers that say a name are left out.

    Raises:
        InputError: There is no such answer.
    """
    if about == "words":
        asked = session.words(session.forget)
    else:
        seen = {(x.person, x.image): x for x in session.pictures(session.forget)}
        asked = [
            dataclasses.replace(sample, question=question)
            for sample in seen.values()
            for question in ABOUT_PICTURES
        ]
    asked = [*{(x.person, x.image, x.question): x for x in asked}.values()]
    questions = [
        Question(x.person, "vqa" if x.image else "qa", "generation", x.image, x.question, x.answer)
        for x in asked
    ]
    lines = session.answerer("plain").answer(
        session.params, questions, split=f"own {about}", label="vanilla model"
    )
    names = {*session.bench.names().values()} if about == "pictures" else set()
    own = [
        dataclasses.replace(sample, answer=line["response"])
        for sample, line in zip(asked, lines, strict=True)
        if line["response"].strip() and not any(has_words(line["response"], name) for name in names)
    ]
    if not own:
        raise InputError(
            f"config.unlearn.anchor: the vanilla model gives no answer of its own about {about} of"
            " the people to forget that names nobody; give 'none' or another anchor"
        )
    return own
