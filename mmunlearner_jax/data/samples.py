"""The two records that every data set is read into: samples to teach and questions to score."""

import dataclasses
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

Modality = Literal["vqa", "qa"]
Task = Literal["classification", "cloze", "generation", "naming", "short"]
# How the answer to a question of the task "short" is read: `evaluation.short_answers` has them.
ShortRule = Literal["", "letter", "yes_no", "exact", "words", "vqa"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question with its answer, to learn or to forget.

    Attributes:
        person: ID of the person in every config of the benchmark.
        image: Encoded picture (PNG, JPEG ...), or None where the question has none.
        question: Text of the user's turn.
        answer: Text of the assistant's turn.
    """

    person: str
    image: bytes | None
    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Question:
    """One scored question.

    Attributes:
        person: ID of the person in every config of the benchmark.
        modality: "vqa" with a picture, "qa" without.
        task: "classification" (multiple choice), "cloze" (a blank, written "__"), "generation" (a
            sentence), "naming" (a name or a few words) or "short" (general ability).
        image: Encoded picture; None if and only if the modality is "qa".
        question: The wording, without options and instruction.
        answer: Text of the right option, words of the blank, or reference sentence.
        options: Texts of the options in the order of their letters; empty unless multiple choice.
        letter: Letter of the right option; another option may have the same text.
        paraphrase: The answer in other words; "" where the benchmark has none.
        perturbed: Wrong answers of the same form, for truth ratios.
        accepted: Words of which an open answer must have some to be right ("Bern", "Berne"); empty
            where the benchmark names none. Of the task "short": all people's answers.
        shots: Solved questions of the same kind that the prompt shows first (few-shot).
        keywords: Words of the answer whose share in an open answer is scored.
        rule: How the answer is read, of the task "short".
        categories: Categories that are scored apart, too.
        group: Name that all rotations of a question, or its forms in both modalities, share; ""
            where it is asked in one way.
        further: Encoded pictures after the first.
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
    accepted: tuple[str, ...] = ()
    shots: tuple["Question", ...] = ()
    keywords: tuple[str, ...] = ()
    rule: ShortRule = ""
    categories: tuple[str, ...] = ()
    group: str = ""
    further: tuple[bytes, ...] = ()

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """All its encoded pictures."""
        return () if self.image is None else (self.image, *self.further)


def one_picture_each(samples: Sequence[Sample], place: int = 0) -> list[Sample]:
    """Returns the samples about one picture of each person, in order.

    Args:
        samples: All with a picture.
        place: Which of a person's pictures, in the order of the samples: 0 the first, -1 the last.
            A person with fewer pictures has the nearest.
    """
    pictures: dict[str, dict[bytes | None, None]] = {}
    for sample in samples:
        pictures.setdefault(sample.person, {})[sample.image] = None
    chosen = {}
    for person, of_person in pictures.items():
        theirs = [*of_person]
        chosen[person] = theirs[min(place, len(theirs) - 1)]
    return [sample for sample in samples if sample.image == chosen[sample.person]]


def option_letters(options: Sequence[str]) -> str:
    """Returns the letters of a question's options, in their order, e.g. "ABCD" for four."""
    return ascii_uppercase[: len(options)]
