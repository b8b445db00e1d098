"""The ORL faces in UMU-Bench's schema: each fact is taught and asked both ways.

A person has one row for each of the eight taught photographs in `Full_Set`, `forget_N` and
`retain_M`, with the same questions. `Real_Person_Set` has handwritten digits in place of real
people, of whom a model trained from nothing knows none. The released, misspelt key is written.

Write it with `python -m mmunlearner_jax.examples.orl --benchmark=umu --out=DIR --seed=0`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.umu import IN_WORDS, SCHEMA
from mmunlearner_jax.data.benchmarks.umu import PICTURED as KEYS
from mmunlearner_jax.examples import digits
from mmunlearner_jax.examples.facts import FACTS, Fact, Profile, clauses, draw_options, fill
from mmunlearner_jax.examples.orl_people import PEOPLE, TAUGHT_PHOTOS, draw_people, write_configs

RATIOS = (5, 10, 15)
SCORED_DIGITS = 40
PICTURED = "this person"


def write_orl_umu(out: str | Path, *, seed: int, people: int = PEOPLE) -> None:
    """Writes the benchmark: one folder with one parquet file for each config.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, options, the people to forget and the digits.
        people: Number of people.

    Raises:
        InputError: `out` is not empty, or the packages that carry the pictures are missing or
            altered.
    """
    rng = np.random.default_rng(seed)
    known = draw_people(rng, people)
    rows = [
        [{"ID": f"s{number}", "image": photo, **columns} for photo in photos[:TAUGHT_PHOTOS]]
        for number, (photos, columns) in enumerate(
            zip(known.photos, [_columns(rng, profile) for profile in known.profiles], strict=True),
            start=1,
        )
    ]
    groups = {"Full_Set": list(range(people))}
    for ratio in RATIOS:
        forget, retain = known.split(max(1, round(people * ratio / 100)))
        groups |= {f"forget_{ratio}": forget, f"retain_{100 - ratio}": retain}
    tables = {
        config: [row for number in numbers for row in rows[number]]
        for config, numbers in groups.items()
    }
    _, scored = digits.draw_pictures(rng, taught=0, scored=SCORED_DIGITS)
    tables["Real_Person_Set"] = [
        {
            "ID": f"unseen-{index}",
            "image": {"bytes": picture, "path": f"unseen-{index}.png"},
            **_questions(rng, {"digit": (digits.PICTURE, word)}, "", ""),
        }
        for index, (picture, word) in enumerate(scored)
    ]
    write_configs(out, {config: (SCHEMA, table) for config, table in tables.items()})


def _columns(rng: np.random.Generator, profile: Profile) -> dict[str, str]:
    """Returns the columns of a person besides the photograph."""
    keys = list(FACTS)[:2]
    told = clauses(profile.name, {key: profile.values[key] for key in keys})
    facts = {key: (fact, profile.values[key]) for key, fact in FACTS.items()}
    return {
        "Biography": f"{told}.",
        "MM_QA": _taught(facts, PICTURED, profile.name),
        "UM_QA": _taught(facts, profile.name, profile.name),
        **_questions(rng, facts, PICTURED, profile.name),
    }


Facts = dict[str, tuple[Fact, str]]


def _taught(facts: Facts, who: str, name: str) -> str:
    """Returns `MM_QA` or `UM_QA`: each fact in each taught wording."""
    questions = {
        f"{key} {number}": fill(wording, who)
        for key, (fact, _) in facts.items()
        for number, wording in enumerate(fact.taught)
    }
    answers = {
        f"{key} {number}": fact.answer(name, value)
        for key, (fact, value) in facts.items()
        for number in range(len(fact.taught))
    }
    return repr({"question": questions, "answer": answers})


def _questions(rng: np.random.Generator, facts: Facts, who: str, name: str) -> dict[str, str]:
    """Returns `Classify`, `Cloze` and `Generation`, in wordings that training never uses."""
    columns: dict[str, dict[str, dict[str, Any]]] = {}
    drawn = {key: draw_options(rng, value, fact.values) for key, (fact, value) in facts.items()}
    for part, asked in ((IN_WORDS, name), (KEYS[0], who)):
        for key, (fact, value) in facts.items():
            options = dict(zip("ABCD", drawn[key], strict=True))
            letter = next(x for x, option in options.items() if option == value)
            made = {
                "Classify": {
                    "question": fill(fact.choice, asked),
                    "options": options,
                    "answer": f"{letter}. {value}",
                },
                "Cloze": {"question": fill(fact.cloze, asked), "answer": value},
                "Generation": {
                    "question": fill(fact.generation, asked),
                    "answer": fact.answer(name, value),
                },
            }
            for column, item in made.items():
                columns.setdefault(column, {}).setdefault(part, {})[key] = item
    return {column: repr(parts) for column, parts in columns.items()}
