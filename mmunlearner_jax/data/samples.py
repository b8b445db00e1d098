"""What is trained on and what is asked: the two records that every data set is read into."""

import dataclasses
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

Modality = Literal["vqa", "qa"]
Task = Literal["classification", "cloze", "generation", "naming"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question and its answer to learn or to forget.

    Attributes:
        person: ID that joins every config of the benchmark.
        image: Encoded picture (PNG, JPEG ...), or None when the question is text only.
        question: What the user says.
        answer: What the assistant is to say.
    """

    person: str
    image: bytes | None
    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Question:
    """One scored question.

    Attributes:
        person: ID that joins every config of the benchmark.
        modality: "vqa" with a picture, "qa" without.
        task: "classification" (multiple choice), "cloze" (a blank written "__"), "generation" (a
            sentence) or "naming" (a name or a few words).
        image: Encoded picture, None exactly when the modality is "qa".
        question: The wording, without options and without instruction.
        answer: The right option's text, the words of the blank, or the reference sentence.
        options: The options' texts in the order of their letters; empty unless multiple choice.
        letter: That of the right option; another option may have the same text.
        paraphrase: The answer in other words, "" where the benchmark has none.
        perturbed: Wrong answers of the same form, for truth ratios.
        shots: Solved questions of the same kind that are shown before (few-shot).
    """

    person: str
    modality: Modality
    task: Task
    image: bytes | None
    question: str
    answer: str
    options: tuple[str, ...] = ()
    letter: str = ""
    paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    shots: tuple["Question", ...] = ()


def option_letters(options: Sequence[str]) -> str:
    """Returns the letters of a question's options, in their order: "ABCD" of four."""
    return ascii_uppercase[: len(options)]
