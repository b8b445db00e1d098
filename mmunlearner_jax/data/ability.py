"""A set of questions about general ability, and how one is put to a model."""

import dataclasses
from dataclasses import dataclass

from mmunlearner_jax.data.benchmarks.base import listed
from mmunlearner_jax.data.samples import Question, ShortRule

SPLIT = "general"  # begins the names of all splits of general ability

BY_LETTER = "Answer with the option's letter from the given choices directly."
IN_A_WORD = "Answer the question using a single word or phrase."


@dataclass(frozen=True, kw_only=True)
class AbilitySet:
    """A set in the TSV form of VLMEvalKit; each module of `data.abilities` has one, as `SET`.

    Attributes:
        name: Name in configs, e.g. "pope".
        title: Name in reports.
        file: Name of the file without ".tsv".
        open_rule: How an answer without options is scored; "": every question has options.
        categories: Column of the categories that are scored apart, too; "": none.
        splits: Values of the column `split` whose rows are asked; (): all rows.
        rotated: Whether a question is asked once for each rotation of its options, and right only
            if all are (CircularEval).
        copies_from: Rows with this index or a larger one repeat others, and are left out; 0: none.
        lines: Pattern of JSON-lines files that may stand in place of the TSV file; "": none. Their
            fields are `question_id`, `image` (a file), `text` and `label`.
    """

    name: str
    title: str
    file: str
    open_rule: ShortRule = ""
    categories: str = "category"
    splits: tuple[str, ...] = ()
    rotated: bool = False
    copies_from: int = 0
    lines: str = ""

    @property
    def split(self) -> str:
        """Name of its split, e.g. "general_pope"."""
        return f"{SPLIT}_{self.name}"

    def asked(self, question: Question) -> list[Question]:
        """Returns a question as often as it is asked, each time with the options rotated by one."""
        if not self.rotated:
            return [question]
        options, answer = question.options, question.options.index(question.answer)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]
        return [
            dataclasses.replace(
                question, options=options[n:] + options[:n], letter=letters[answer - n]
            )
            for n in range(len(options))
        ]


def turn(question: Question) -> str:
    """Returns the user's turn of a question: hint, question, options, and LLaVA-1.5's instruction.

    Source: Liu et al., "Improved Baselines with Visual Instruction Tuning", arXiv 2310.03744.
    """
    if question.options:
        return f"{listed(question, '. ')}\n{BY_LETTER}"
    return f"{question.question}\n{IN_A_WORD}"
