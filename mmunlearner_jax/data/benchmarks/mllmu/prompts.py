"""MLLMU-Bench's prompts, letter for letter.

Source: the templates in `MLLMU_eval.py` of MMUnlearner's published code. For LLaVA they bypass the
chat template. Blanks and line ends are as published, and inconsistent.
"""

import dataclasses

from mmunlearner_jax.data.benchmarks.base import listed
from mmunlearner_jax.data.samples import Question

_CHOOSE = "Just give ONE letter representing the answer directly."
_FILL = "Please **ONLY** provide the correct answer that should replace the [Blank]."
# The published code leaves out "accurately" where there is no picture.
_SAY = "Answer the question based on your trained knowledge in one sentence{} in ENGLISH."


def whole_prompt(question: Question) -> str:
    """Returns the whole prompt for LLaVA, with `<image>` for each picture, demonstrations first.

    Args:
        question: A question of any task; a blank is written "__".
    """
    text, pictured = _instructed(question), question.image is not None
    if question.task == "generation":
        return f"USER: <image>\n{text}\nASSISTANT: " if pictured else f"USER: {text}\nASSISTANT:"
    few = "".join(map(_demonstration, question.shots))
    return f"{few}USER:{' <image>' if pictured else ''}\n{text}\nASSISTANT:"


def turn(question: Question) -> str:
    """Returns the user's turn for Qwen2-VL, which follows all pictures of the prompt.

    In the published code some questions in words bypass the chat template or lose their
    demonstrations, and some prompts have more pictures than image tokens (D-28). Here every prompt
    is one turn, whose demonstrations do not mark the places of their pictures.

    Args:
        question: A question of any task; a blank is written "__".
    """
    if question.task == "generation":
        return _instructed(question)
    shots = (dataclasses.replace(shot, image=None) for shot in question.shots)
    return f"{''.join(map(_demonstration, shots))}\n{_instructed(question)}"


def _instructed(question: Question) -> str:
    """Returns the question with its instruction, the same for both models."""
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
