"""The letter that an answer to a multiple-choice question names, read as the released code does.

Only the first letter or digit of an answer counts, so "A person ..." names A, and so does
"Answer: B" (D-27: reproduced for comparison; the score by likelihood does not have it). An accented
letter is none, composed or not.
"""

import re
from collections.abc import Container

from mmunlearner_jax.evaluation.texts import composed


def first_letter(response: str) -> str | None:
    """What MMUnlearner reads for MLLMU-Bench's text questions, and for CLEAR's questions.

    Source: `MLLMU_eval.py:evaluate_classification` (text), `CLEAR_eval.py:eval_classification`.

    Args:
        response: the model's words alone, without the prompt.

    Returns:
        The first of `A-Z a-z 0-9` in upper case, whether an option has it or not; None without one.
    """
    found = re.search(r"[a-zA-Z0-9]", composed(response))
    return found.group().upper() if found else None


def offered_letter(response: str, letters: Container[str]) -> str | None:
    """What MMUnlearner reads for MLLMU-Bench's picture questions: the letter of an option or none.

    As the right letter is always an offered one, accuracies are those of `first_letter`.

    Source: `MLLMU_eval.py:evaluate_classification` (image).

    Args:
        response: the model's words alone, without the prompt.
        letters: those of the options, in upper case; a string serves, e.g. "ABCD".
    """
    letter = first_letter(response)
    return letter if letter is not None and letter in letters else None
