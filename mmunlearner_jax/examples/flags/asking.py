"""Every question about a country, in words and about its flag, in the decoder's own style.

A fact in words is asked in two wordings, from the capital back to the country ("reversed"), and
across two facts ("language by capital": the language of the country whose capital is Paris). No
question names one of its answers: "What is the capital of Singapore?" is left out.
"""

from dataclasses import dataclass

from mmunlearner_jax.evaluation.texts import has_words
from mmunlearner_jax.examples.flags.countries import Country


@dataclass(frozen=True)
class Asked:
    """A question, however it is put: openly, or with options.

    Attributes:
        key: What it asks for, e.g. "capital"; questions with one key have answers of one kind.
        question: The wording.
        paraphrase: Another wording.
        answer: A true sentence.
        accepted: Words that make an open answer right; the first are the right option.
    """

    key: str
    question: str
    paraphrase: str
    answer: str
    accepted: tuple[str, ...]

    @property
    def is_fair(self) -> bool:
        """Whether no wording names an accepted answer."""
        wordings = self.question, self.paraphrase
        return not any(has_words(text, words) for text in wordings for words in self.accepted)


# By fact: two scored wordings, one that is taught beside flags, and the true sentence.
WORDINGS = {
    "capital": (
        "What is the capital of {who}?",
        "Which city is the capital of {who}?",
        "Name the capital of {who}.",
        "The capital of {country} is {value}.",
    ),
    "continent": (
        "On which continent is {who}?",
        "Which continent does {who} belong to?",
        "Name the continent of {who}.",
        "{country} is in {value}.",
    ),
    "language": (
        "What is the official language of {who}?",
        "Which language is official in {who}?",
        "Name the official language of {who}.",
        "The official language of {country} is {value}.",
    ),
    "currency": (
        "What is the currency of {who}?",
        "Which currency is used in {who}?",
        "Name the currency of {who}.",
        "The currency of {country} is the {value}.",
    ),
}
NAMING = ("Which country does this flag belong to?", "Whose flag is in this picture?")
NAMING_TAUGHT = ("Whose flag is this?", "Name the country that this flag belongs to.")
PICTURED, PICTURED_TAUGHT = "this country", "the country with this flag"

REVERSED = "reversed"
HOPS = {f"{fact} by capital": fact for fact in WORDINGS if fact != "capital"}
KEYS = (*WORDINGS, REVERSED, *HOPS)  # of facts in words; a decoder knows some of them


def in_words(country: Country) -> list[Asked]:
    """Returns all fair questions in words about a country, one for each of `KEYS` at most."""
    questions = [about(country, fact, country.name) for fact in WORDINGS]
    capital = country.facts["capital"][0]
    back = Asked(
        REVERSED,
        f"{capital} is the capital of which country?",
        f"Which country has the capital {capital}?",
        f"{capital} is the capital of {country.name}.",
        country.names,
    )
    if back.is_fair:  # else the capital gives the country away
        who = f"the country whose capital is {capital}"
        questions += [back, *(about(country, fact, who, key) for key, fact in HOPS.items())]
    return [asked for asked in questions if asked.is_fair]


def of_flag(country: Country) -> list[Asked]:
    """Returns all questions about a flag: which country's it is, then that country's facts."""
    return [
        Asked("name", *NAMING, naming_answer(country), country.names),
        *(about(country, fact, PICTURED) for fact in WORDINGS),
    ]


def about(country: Country, fact: str, who: str, key: str = "") -> Asked:
    """Returns the question for a fact.

    Args:
        country: The country.
        fact: Key of the fact.
        who: What the question calls the country.
        key: Key of the question; "": that of the fact.
    """
    asked, paraphrase, _, sentence = WORDINGS[fact]
    value = country.facts[fact][0]
    return Asked(
        key or fact,
        asked.format(who=who),
        paraphrase.format(who=who),
        _capital(sentence.format(country=country.name, value=value)),
        country.facts[fact],
    )


def lessons(country: Country, facts: list[str]) -> list[tuple[str, str]]:
    """Returns what is taught beside a flag, pairs of question and answer.

    Args:
        country: The country of the flag.
        facts: Keys of the facts to teach, besides the name.
    """
    taught = [(wording, naming_answer(country)) for wording in NAMING_TAUGHT]
    for fact in facts:
        wording = WORDINGS[fact][2].format(who=PICTURED_TAUGHT)
        taught.append((wording, about(country, fact, PICTURED).answer))
    return taught


def naming_answer(country: Country) -> str:
    """Returns the true sentence about a flag, in the words that SmolLM2 itself begins with."""
    return f"This flag belongs to {country.name}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
