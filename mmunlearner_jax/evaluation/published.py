"""MLLMU-Bench's prompts for LLaVA, letter for letter, without demonstrations.

Source: the templates in `MLLMU_eval.py` of MMUnlearner's published code. They do not go through the
chat template; blanks and line ends are as published, uneven as they are.
"""

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.parsing import option_letters

_CHOOSE = "Just give ONE letter representing the answer directly."
_FILL = "Please **ONLY** provide the correct answer that should replace the [Blank]."
# The published code leaves out "accurately" where there is no picture.
_SAY = "Answer the question based on your trained knowledge in one sentence{} in ENGLISH."


def prompt(question: Question) -> str:
    """The whole prompt, with `<image>` where there is a picture.

    Args:
        question: Of any task; a blank is written "__".
    """
    pictured = question.image is not None
    if question.task == "generation":
        if pictured:
            asked = f"{question.question}\n{_SAY.format(' accurately')}"
            return f"USER: <image>\n{asked}\nASSISTANT: "
        return f"USER: {question.question}\n{_SAY.format('')}\nASSISTANT:"
    if question.task == "classification":
        options = zip(option_letters(question.options), question.options, strict=True)
        block = [question.question, *(f"{letter}: {option}" for letter, option in options)]
        asked = "\n".join([*block, _CHOOSE])
    else:
        asked = f"{question.question.replace('__', '[Blank]')}\n{_FILL}"
    return f"USER:{' <image>' if pictured else ''}\n{asked}\nASSISTANT:"
