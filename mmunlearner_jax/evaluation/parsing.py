"""The letter in the answer to a multiple-choice question, parsed as in the released code.

Only the first letter or digit of an answer counts, so both "A person ..." and "Answer: B" mean A
(D-27: a defect, reproduced for comparison; scores by likelihood do not have it). Accented letters
are skipped, composed or not.
"""

import re
from collections.abc import Container

from mmunlearner_jax.evaluation.texts import composed


def first_letter(response: str) -> str | None:
    """Returns what MMUnlearner reads for MLLMU-Bench's text questions and CLEAR's questions.

    Source: `MLLMU_eval.py:evaluate_classification` (text), `CLEAR_eval.py:eval_classification`.

    Args:
        response: The model's answer, without the prompt.

    Returns:
        The first of `A-Z a-z 0-9`, in upper case, whether an option has it or not; None if there is
        none.
    """
    match = re.search(r"[a-zA-Z0-9]", composed(response))
    return match.group().upper() if match else None


def offered_letter(response: str, letters: Container[str]) -> str | None:
    """Returns what MMUnlearner reads for MLLMU-Bench's picture questions: an option's letter.

    The right letter is always an option's, so accuracies are the same as with `first_letter`.

    Source: `MLLMU_eval.py:evaluate_classification` (image).

    Args:
        response: The model's answer, without the prompt.
        letters: Letters of the options, in upper case, e.g. "ABCD".

    Returns:
        The letter; None if the first letter or digit is no option's, or there is none.
    """
    letter = first_letter(response)
    return letter if letter is not None and letter in letters else None
