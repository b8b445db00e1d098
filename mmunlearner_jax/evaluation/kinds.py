"""Kinds of scored questions: what each is about, and whether its score is meant to fall."""

from typing import NamedTuple


class Asked(NamedTuple):
    """A kind of question: what it is about, and whether its score is meant to fall."""

    label: str
    falls: bool = False


# In the order of the tables.
ASKED = {
    ("forget", "vqa"): Asked("Forgotten people, training photographs", falls=True),
    ("test", "vqa"): Asked("Forgotten people, unseen photographs", falls=True),
    ("forget", "qa"): Asked("Forgotten people, in words"),
    ("test", "qa"): Asked("Forgotten people, in other words"),
    ("retain", "vqa"): Asked("Other people, training photographs"),
    ("test_retain", "vqa"): Asked("Other people, unseen photographs"),
    ("retain", "qa"): Asked("Other people, in words"),
    ("test_retain", "qa"): Asked("Other people, in other words"),
    ("real_faces", "vqa"): Asked("Other faces"),
    ("realworld", "vqa"): Asked("Other things, pictures"),
    ("realworld", "qa"): Asked("Other things, in words"),
}
