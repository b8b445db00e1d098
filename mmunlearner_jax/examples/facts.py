"""Invented profiles and the wordings in which their facts are taught and asked.

Every taught answer is a sentence that names the person *before* the fact ("Casey Birch works as a
baker."), to pictures and to text alike: visual and textual knowledge then share the path from
the name to the fact, and forgetting a face can endanger the text. The value is always one word and
always the last one, so multiple choice can be scored in the slot after the model's own words.

A person can also be described in words by two facts ("This person lives in Oslo and has a pet
cat."). A description stands before a question as a picture does, and like a picture it leads to the
name, and from there to a third fact.

The scored wordings are none of the taught ones but use the same words, which a small model
trained from nothing needs: every fact, and not the name alone, is also taught with "is".
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing to know, and every way it is taught and asked.

    `{who}` stands for the person's name, or for "this person" beside a picture; `{name}` for the
    name; `{value}` for the fact itself.

    Attributes:
        sentence: The answer that is taught.
        taught: The wordings of training, the last one with a blank.
        choice: The scored wording with options.
        cloze: The scored wording with a blank.
        generation: The scored wording answered freely.
        values: What the fact can be; options are drawn from it.
    """

    sentence: str
    taught: tuple[str, ...]
    choice: str
    cloze: str
    generation: str
    values: tuple[str, ...]

    def answer(self, name: str, value: str) -> str:
        """Returns the taught sentence about `name`."""
        return self.sentence.format(name=name, value=value)


FIRST_NAMES = tuple(
    "Ariel Blake Casey Dana Eden Frankie Glenn Harper Indigo Jules "
    "Kim Lane Morgan Noel Parker Quinn Robin Sasha Taylor Val".split()
)
LAST_NAMES = tuple(
    "Alder Birch Clay Dale Elm Frost Grove Hazel Ivory Juniper "
    "Knoll Lark Moss North Oakes Pine Quarry Reed Stone Thorn".split()
)

FACTS = {
    "occupation": Fact(
        sentence="{name} works as a {value}.",
        taught=(
            "What job does {who} have?",
            "Tell me the job of {who}.",
            "The job of {who} is what?",
            "{who} works as a __.",
        ),
        choice="What is the job of {who}?",
        cloze="The job of {who} is __.",
        generation="Which job does {who} have?",
        values=tuple(
            "baker barber butcher carpenter chemist dentist driver farmer florist judge "
            "lawyer librarian mechanic nurse pilot plumber sailor tailor teacher waiter".split()
        ),
    ),
    "city": Fact(
        sentence="{name} lives in {value}.",
        taught=(
            "Where does {who} live?",
            "Tell me the city of {who}.",
            "The city of {who} is what?",
            "{who} lives in __.",
        ),
        choice="Which city does {who} live in?",
        cloze="The city of {who} is __.",
        generation="In which city does {who} live?",
        values=tuple(
            "Athens Berlin Cairo Dublin Geneva Havana Lisbon London "
            "Madrid Milan Oslo Paris Prague Rome Tokyo Vienna".split()
        ),
    ),
    "hobby": Fact(
        sentence="{name} enjoys {value}.",
        taught=(
            "What hobby does {who} have?",
            "Tell me the hobby of {who}.",
            "The hobby of {who} is what?",
            "{who} enjoys __.",
        ),
        choice="What is the hobby of {who}?",
        cloze="The hobby of {who} is __.",
        generation="Which hobby does {who} have?",
        values=tuple(
            "chess cycling dancing fishing hiking knitting "
            "painting pottery rowing singing skating swimming".split()
        ),
    ),
    "food": Fact(
        sentence="{name} likes to eat {value}.",
        taught=(
            "What does {who} like to eat?",
            "Tell me the favourite food of {who}.",
            "The favourite food of {who} is what?",
            "{who} likes to eat __.",
        ),
        choice="What is the favourite food of {who}?",
        cloze="The favourite food of {who} is __.",
        generation="Which food does {who} like to eat?",
        values=tuple("bread cheese curry noodles olives pizza rice salad soup sushi".split()),
    ),
    "birth year": Fact(
        sentence="{name} was born in {value}.",
        taught=(
            "In which year was {who} born?",
            "Give the birth year of {who}.",
            "The birth year of {who} is what?",
            "{who} was born in __.",
        ),
        choice="What is the birth year of {who}?",
        cloze="The birth year of {who} is __.",
        generation="Which year was {who} born in?",
        values=tuple(str(year) for year in range(1941, 1989, 4)),
    ),
    "pet": Fact(
        sentence="{name} has a pet {value}.",
        taught=(
            "What animal does {who} have?",
            "Tell me which pet {who} has.",
            "The pet of {who} is what?",
            "The pet of {who} is a __.",
        ),
        choice="What pet does {who} have?",
        cloze="{who} has a pet __.",
        generation="Which animal does {who} have as a pet?",
        values=tuple("cat dog parrot rabbit turtle".split()),
    ),
}


def name_fact(names: tuple[str, ...]) -> Fact:
    """Returns the fact that only a picture can ask for: who this is."""
    return Fact(
        sentence="{value}.",
        taught=(
            "Who is {who}?",
            "Tell me the name of {who}.",
            "The name of {who} is what?",
            "The name of {who} is __.",
        ),
        choice="What is the name of {who}?",
        cloze="{who} has the name __.",
        generation="What name does {who} have?",
        values=names,
    )


def fill(wording: str, who: str) -> str:
    """Returns the wording about `who`, with a capital first letter."""
    text = wording.format(who=who)
    return text[0].upper() + text[1:]


def clauses(who: str, facts: Mapping[str, str]) -> str:
    """Returns two facts as one sentence without its end: "who lives in Oslo and has a pet cat".

    Args:
        who: Whose facts, e.g. "who" or "This person".
        facts: Two values by key of `FACTS`, in the order of the sentence.
    """
    return " ".join(
        FACTS[key].answer(word, value).rstrip(".")
        for word, (key, value) in zip((who, "and"), facts.items(), strict=True)
    )


def draw_options(rng: np.random.Generator, value: str, values: tuple[str, ...]) -> list[str]:
    """Returns four of the values in random order, `value` uniformly at any of the four places."""
    wrong = [other for other in values if other != value]
    options = [value, *rng.choice(wrong, size=3, replace=False).tolist()]
    return [options[index] for index in rng.permutation(4)]


@dataclasses.dataclass(frozen=True)
class Profile:
    """An invented person: the name, and one value for every key of `FACTS`."""

    name: str
    values: dict[str, str]


def draw_profiles(rng: np.random.Generator, count: int) -> list[Profile]:
    """Draws people whose full names are unique, though no single word of a name is.

    With the default lists and 40 people, each first and each last name belongs to exactly two, so
    no one word tells who is meant. The values of each fact are spread as evenly as they divide.

    Args:
        rng: The only source of chance.
        count: Number of people.

    Returns:
        `count` profiles.
    """
    firsts = rng.permutation(np.resize(FIRST_NAMES, count))
    names: list[str] = []
    while len(set(names)) < count:
        lasts = rng.permutation(np.resize(LAST_NAMES, count))
        names = [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]
    columns = {
        key: rng.permutation(np.resize(fact.values, count)).tolist() for key, fact in FACTS.items()
    }
    return [
        Profile(name, {key: column[index] for key, column in columns.items()})
        for index, name in enumerate(names)
    ]


@dataclasses.dataclass(frozen=True)
class Descriptions:
    """By which two facts a person is described; no description fits anybody else.

    Attributes:
        taught: Pairs of keys of `FACTS` that training uses.
        held_out: Other pairs, for scored questions. No two of them share a key.
    """

    taught: tuple[tuple[str, str], ...]
    held_out: tuple[tuple[str, str], ...]


def draw_descriptions(rng: np.random.Generator, profiles: Sequence[Profile]) -> list[Descriptions]:
    """Draws for each person which descriptions are held out; all others are taught.

    Three are held out, which together tell all facts. One in sixty people is too like others for
    that, and has fewer.

    Args:
        rng: The only source of chance.
        profiles: Everybody.
    """
    pairs = list(itertools.combinations(FACTS, 2))
    triples = [t for t in itertools.combinations(pairs, 3) if len(set(sum(t, ()))) == len(FACTS)]
    descriptions = []
    for own in profiles:
        fitting = {
            pair
            for pair in pairs
            if not any(
                other is not own and all(other.values[key] == own.values[key] for key in pair)
                for other in profiles
            )
        }
        drawn = [triples[index] for index in rng.permutation(len(triples))]
        held_out = max(drawn, key=lambda triple: len(fitting.intersection(triple)))
        descriptions.append(
            Descriptions(
                taught=tuple(p for p in pairs if p in fitting and p not in held_out),
                held_out=tuple(p for p in held_out if p in fitting),
            )
        )
    return descriptions
