"""MLLMU-Bench's prompts, letter for letter.

Source: the templates in `MLLMU_eval.py` of MMUnlearner's published code. For LLaVA they do not go
through the chat template; blanks and line ends are as published, uneven as they are.
"""

import dataclasses

from mmunlearner_jax.data.benchmarks.base import listed
from mmunlearner_jax.data.samples import Question

_CHOOSE = "Just give ONE letter representing the answer directly."
_FILL = "Please **ONLY** provide the correct answer that should replace the [Blank]."
# The published code leaves out "accurately" where there is no picture.
_SAY = "Answer the question based on your trained knowledge in one sentence{} in ENGLISH."


def whole_prompt(question: Question) -> str:
    """The whole prompt for LLaVA, with `<image>` for each picture, demonstrations first.

    Args:
        question: Of any task; a blank is written "__".
    """
    asked, pictured = _asked(question), question.image is not None
    if question.task == "generation":
        return f"USER: <image>\n{asked}\nASSISTANT: " if pictured else f"USER: {asked}\nASSISTANT:"
    few = "".join(map(_demonstration, question.shots))
    return f"{few}USER:{' <image>' if pictured else ''}\n{asked}\nASSISTANT:"


def turn(question: Question) -> str:
    """What the user says to Qwen2-VL, behind all pictures of the prompt.

    Published, some questions in words go past the chat template or lose their demonstrations, and
    some prompts have more pictures than places (D-28). Here all are wordings of one turn, whose
    demonstrations say nothing of their pictures' places.

    Args:
        question: Of any task; a blank is written "__".
    """
    if question.task == "generation":
        return _asked(question)
    shots = (dataclasses.replace(shot, image=None) for shot in question.shots)
    return f"{''.join(map(_demonstration, shots))}\n{_asked(question)}"


def _asked(question: Question) -> str:
    """The question and its instruction, which both models are given."""
    if question.task == "generation":
        manner = " accurately" if question.image is not None else ""
        return f"{question.question}\n{_SAY.format(manner)}"
    if question.task == "classification":
        return f"{listed(question, ': ')}\n{_CHOOSE}"
    return _blank(question)


def _demonstration(shot: Question) -> str:
    if shot.task == "classification":
        image = " <image>" if shot.image is not None else ""
        return f"USER:{image}\nQuestion: {listed(shot, ': ')}\nCorrect Answer: {shot.letter}\n"
    image = "<image>" if shot.image is not None else ""  # no blank here, unlike elsewhere
    return f"USER:{image}\n{_blank(shot)}\nCorrect Answer: {shot.answer}\n"


def _blank(question: Question) -> str:
    return f"{question.question.replace('__', '[Blank]')}\n{_FILL}"
