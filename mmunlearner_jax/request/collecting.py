"""Collects a request from what the command line names."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.evaluation.texts import words
from mmunlearner_jax.progress import say
from mmunlearner_jax.request import PERSON, kept, photographs, topics
from mmunlearner_jax.request.sets import Request, Subject

_MOST = 6  # photographs of each of the others that are asked about


def collect(
    folder: Path,
    name: str,
    keep: Path | None,
    facts: Path | None,
    earlier: Path | None = None,
    *,
    seed: int,
) -> Request:
    """Reads the photographs and the facts of a request.

    Args:
        folder: Photographs of the person.
        name: The person's name.
        keep: Folder of what is to be kept; None: what scikit-learn ships.
        facts: CSV file of facts about the person; None: there is none.
        earlier: Folder of people whom the model forgot earlier; None: nobody.
        seed: Decides which photographs are set apart.

    Raises:
        InputError: A folder or a file is missing or cannot be read, the name is none, or there are
            too few photographs.
    """
    check_name(name)
    rng = np.random.default_rng(seed)
    person = photographs.read_person(folder)
    given = topics.read_facts(facts) if facts else []
    groups = photographs.read_groups(keep) if keep else {}
    photographs.refuse_shared(person, groups)
    if name in groups:
        raise InputError(f"--keep={shown(keep, 200)}: has a folder of {name!r}; remove it")
    pictured = [topics.naming(name), *topics.known_facts(given, topics.PICTURED)]
    in_words = topics.known_facts(given, name) + [topics.about(name)]
    subject = _subject(PERSON, name, person, rng, pictured, in_words)
    others = _others(groups, rng)
    things = [kept.numerals(rng)]
    if keep and not others:
        raise InputError(f"--keep={shown(keep, 200)}: holds one picture; give two or more")
    if others:
        things.append(kept.scenes(rng))
    else:
        others.append(kept.scenes(rng))
        say(
            "no --keep: pictures that scikit-learn ships are kept, which are no people; give"
            " photographs of others whom the model knows"
        )
    forgotten = _earlier(earlier, person, {name, *groups}, rng) if earlier else []
    return Request(subject, others, things, forgotten, seed)


def check_name(name: str) -> None:
    """Refuses what is no name.

    Raises:
        InputError: The name is a path, or has no letter.
    """
    if "/" in name or "\\" in name:
        raise InputError(
            f"--name={shown(name)}: is a path; give the name that the model says, e.g. 'Anna Berg'"
        )
    if not words(name):
        raise InputError(f"--name={shown(repr(name))}: has no letter; give the person's name")


def _others(
    groups: dict[str, list[photographs.Photograph]], rng: np.random.Generator
) -> list[Subject]:
    """Returns other people, and what has no name or one picture alone as one subject."""
    loose = groups.pop("", [])
    loose += [it for group in groups.values() if len(group) == 1 for it in group]
    people = {name: group for name, group in groups.items() if len(group) > 1}
    others = [
        _subject(
            f"other-{number}",
            name,
            group[:_MOST],
            rng,
            [topics.naming(name), topics.THING],
            [topics.about(name)],
        )
        for number, (name, group) in enumerate(people.items(), 1)
    ]
    if len(loose) > 1:
        others.append(_subject("pictures", "a picture", loose, rng, [topics.THING], []))
    return others


def _earlier(
    folder: Path,
    person: list[photographs.Photograph],
    taken: Collection[str],
    rng: np.random.Generator,
) -> list[Subject]:
    """Returns the people whom the model forgot earlier, who are asked who they are."""
    groups, flag = photographs.read_groups(folder, "earlier"), f"--earlier={shown(folder, 200)}"
    if groups.pop("", None):
        raise InputError(
            f"{flag}: holds a picture outside of the subfolders; put it into one with the person's"
            " name"
        )
    if again := [name for name in groups if name in taken]:
        raise InputError(
            f"{flag}: has a folder of {again[0]!r}, who is also in --name or --keep; remove one"
        )
    photographs.refuse_shared(person, groups, "earlier")
    return [
        _subject(f"earlier-{number}", name, group[:_MOST], rng, [topics.naming(name)], [])
        for number, (name, group) in enumerate(groups.items(), 1)
    ]


def _subject(
    key: str,
    name: str,
    pictures: list[photographs.Photograph],
    rng: np.random.Generator,
    pictured: list[topics.Topic],
    in_words: list[topics.Topic],
) -> Subject:
    learned, unseen = photographs.split(pictures, rng)
    return Subject(
        key,
        name,
        [photograph.encoded for photograph in learned],
        [photograph.encoded for photograph in unseen],
        pictured,
        in_words,
    )
