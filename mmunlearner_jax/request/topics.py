"""What a model is asked about the person and about what is to be kept, and in which wordings."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmunlearner_jax.errors import InputError, listed, refusing, shown
from mmunlearner_jax.evaluation.texts import has_words
from mmunlearner_jax.examples.facts import Fact, fill, name_fact
from mmunlearner_jax.files import read_bytes

PICTURED = "this person"
COLUMNS = ("fact", "value")
_MEND = "give a CSV file with the columns fact and value, e.g. a line `job,baker`"


class Topic(NamedTuple):
    """One thing to ask.

    Attributes:
        fact: Its wordings: steps learn from `taught`, `cloze` and `generation` are scored.
        who: Who is asked about: a name, or "this person" beside a picture.
        accepted: An answer is right if it has the words of one of them. (): there is no right
            answer, and the model's own answer is what is to be kept.
    """

    fact: Fact
    who: str
    accepted: tuple[str, ...] = ()

    @property
    def taught(self) -> list[str]:
        """The wordings that steps learn from."""
        return [fill(wording, self.who) for wording in self.fact.taught]

    @property
    def generation(self) -> str:
        """The scored wording that is answered freely."""
        return fill(self.fact.generation, self.who)

    @property
    def cloze(self) -> str:
        """The scored wording with a blank."""
        return fill(self.fact.cloze, self.who)

    @property
    def choice(self) -> str:
        """The scored wording with options."""
        return fill(self.fact.choice, self.who)

    def is_right(self, answer: str) -> bool:
        """Returns whether an answer has the words of an accepted one."""
        return any(has_words(answer, words) for words in self.accepted)


def _open(*taught: str, scored: str) -> Fact:
    """Returns wordings to which there is no one right answer."""
    return Fact("{value}", taught, choice=scored, cloze=scored, generation=scored, values=())


THING = Topic(
    _open("What is in this picture?", "Describe this picture.", scored="What does this show?"), ""
)
_ABOUT = _open(
    *("Who is {who}?", "Tell me about {who}.", "What is {who} known for?"),
    scored="What do you know about {who}?",
)
# What a model should still know whoever it forgets.
WORLD = tuple(
    Topic(_open(taught, scored=scored), "")
    for taught, scored in (
        ("What is the capital of France?", "Which city is the capital of France?"),
        ("How many days does a week have?", "A week has how many days?"),
        ("What colour is the sky on a clear day?", "Which colour has a clear sky?"),
        ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by whom?"),
        ("What do bees make?", "Which food do bees make?"),
        ("What is the largest planet of the solar system?", "Which planet is the largest?"),
    )
)


def naming(name: str) -> Topic:
    """Returns the question who is in a picture."""
    return Topic(name_fact((name,)), PICTURED, (name,))


def about(name: str) -> Topic:
    """Returns what is asked in words about a person of whom no fact is given."""
    return Topic(_ABOUT, name)


def known_facts(facts: Sequence[tuple[str, tuple[str, ...]]], who: str) -> list[Topic]:
    """Returns the questions about facts.

    Args:
        facts: Pairs of a noun ("job") and its accepted values.
        who: The person's name, or "this person" beside a picture.
    """
    return [Topic(_fact(noun, values), who, values) for noun, values in facts]


def _fact(noun: str, values: tuple[str, ...]) -> Fact:
    taught = f"What is the {noun} of {{who}}?", f"Tell me the {noun} of {{who}}."
    return Fact(
        "{value}",
        (*taught, f"The {noun} of {{who}} is what?"),
        choice=f"What is the {noun} of {{who}}?",
        cloze=f"The {noun} of {{who}} is __.",
        generation=f"Which {noun} does {{who}} have?",
        values=values,
    )


def read_facts(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Reads facts about the person.

    Args:
        path: A CSV file in UTF-8 with the columns `fact` (a noun: "job") and `value` ("baker";
            other spellings behind "|": "Bern|Berne").

    Returns:
        The noun and the accepted values of each line.

    Raises:
        InputError: The file cannot be read, a column is missing, or a cell is empty.
    """
    content = read_bytes(path, mend=_MEND)
    with refusing(path, _MEND):
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns, rows = [x.strip() for x in lines.fieldnames or ()], list(lines)
    if missing := [name for name in COLUMNS if name not in columns]:
        raise InputError(f"{path}: no column {missing[0]}; it has {listed(columns)}: {_MEND}")
    facts = []
    for number, row in enumerate(rows, 2):
        cells = {(key or "").strip(): value for key, value in row.items()}
        noun = (cells["fact"] or "").strip()
        values = tuple(x for x in map(str.strip, (cells["value"] or "").split("|")) if x)
        if not noun or not values or {"{", "}"} & {*noun}:
            raise InputError(
                f"{path}: line {number}: {shown(repr(row))} has no fact or no value; fill it in"
            )
        facts.append((noun, values))
    if not facts:
        raise InputError(f"{path}: holds no fact; {_MEND}")
    return facts
