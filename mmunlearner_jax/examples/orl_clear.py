"""The ORL benchmark in CLEAR's own parquet schema: the same people, photographs and profiles.

All 21 released configs are there with all their columns, so what reads these files reads the
released ones. What is particular here:

* The eight taught photographs of a person are captioned; every caption names the person and tells
  two facts of the profile, the same two for all photographs of a person.
* TOFU's place is taken by questions in words about all six facts of everybody's profile.
* 1 % of 40 people would be nobody: `forget01` is about one person, `forget05` two, `forget10` four.
* `retain_perturbed` asks about the 36 whom no config forgets, by taught photographs as released.
* `real_faces` asks for the names of those 36 by the two photographs that are never trained on. The
  unseen photographs of the others are left out: CLEAR has no config for them.
* `real_world` asks about handwritten digits. A model that is trained from nothing must learn digits
  somewhere, so there is one config more, `world+tofu`: other digits, each with a question and its
  answer. It has the columns of all configs "+tofu" and is about nobody. An answer is the digit's
  word alone, so that it can be weighed against the wrong ones as names are.

Write it with `python -m mmunlearner_jax.examples.orl --benchmark=clear --out=DIR --seed=0`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.clear import WORLD, clear_schema
from mmunlearner_jax.examples import digits
from mmunlearner_jax.examples.facts import FACTS, Profile, clauses, draw_options, fill
from mmunlearner_jax.examples.orl_people import PEOPLE, TAUGHT_PHOTOS, draw_people, write_configs

RATIOS = (1, 5, 10)
TAUGHT_DIGITS, SCORED_DIGITS = 400, 200
# The name comes first, as in all taught answers (`facts.py`), so that it can be asked for alone.
# A small model must also have met the words of CLEAR's questions for it.
CAPTIONS = (
    "{name}, {facts}, is the person on the image.",
    "{name} is the name of this person, {facts}.",
)

Rows = list[dict[str, Any]]


def write_orl_clear(out: str | Path, *, seed: int, people: int = PEOPLE) -> None:
    """Writes the benchmark: one folder with one parquet file for each config.

    A seed gives the same people as `write_orl_benchmark`, forgotten in the same order: those of a
    smaller ratio are among those of a larger one. Nothing is left behind when it fails.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, captions, options, the people to forget and the digits.
        people: Number of people; there are digits in proportion.

    Raises:
        InputError: `out` is not empty, or the packages that carry the pictures are missing or
            altered.
    """
    rng = np.random.default_rng(seed)
    known = draw_people(rng, people)
    names = tuple(profile.name for profile in known.profiles)
    captioned = [
        _captioned(rng, profile, photos[:TAUGHT_PHOTOS], names)
        for profile, photos in zip(known.profiles, known.photos, strict=True)
    ]
    groups = {"full": list(range(people))}
    for ratio in RATIOS:
        forget, retain = known.split(max(1, round(people * ratio / 100)))
        groups |= {f"forget{ratio:02d}": forget, f"retain{100 - ratio}": retain}
    tables: dict[str, Rows] = {}
    for config, numbers in groups.items():
        tables[config] = [row for number in numbers for row in captioned[number]]
        tables[f"{config}+tofu"] = tables[config] + [
            row for number in numbers for row in _in_words(known.profiles[number])
        ]
        if config.startswith("forget"):
            tables[f"{config}_perturbed"] = tables[config]
    never_forgotten = groups[f"retain{100 - max(RATIOS)}"]
    taught, scored = digits.draw_pictures(
        rng, taught=TAUGHT_DIGITS * people // PEOPLE, scored=SCORED_DIGITS * people // PEOPLE
    )
    tables |= {
        "default": tables["full"],
        "retain_perturbed": [row for number in never_forgotten for row in captioned[number]],
        "real_faces": [
            {"image": photo, "answer": names[number], "options": _wrong(rng, names[number], names)}
            for number in never_forgotten
            for photo in known.photos[number][TAUGHT_PHOTOS:]
        ],
        "real_world": _asked_digits(rng, scored),
        WORLD: _taught_digits(taught),
    }
    write_configs(out, {config: (clear_schema(config), rows) for config, rows in tables.items()})


def _captioned(
    rng: np.random.Generator, profile: Profile, photos: Rows, names: tuple[str, ...]
) -> Rows:
    """Returns a row with caption, name and whatever is asked of them, for each photograph."""
    keys = rng.choice(list(FACTS), size=2, replace=False).tolist()
    facts = {key: profile.values[key] for key in keys}
    rows = []
    for photo in photos:
        wording, other = rng.permutation(CAPTIONS).tolist()
        wrong_names = _wrong(rng, profile.name, names)
        wrong_facts = zip(
            *(_wrong(rng, facts[key], FACTS[key].values) for key in keys), strict=True
        )
        perturbed = [(name, facts) for name in wrong_names[:2]] + [
            (profile.name, dict(zip(keys, values, strict=True))) for values in list(wrong_facts)[:2]
        ]
        rows.append(
            {
                "image": photo,
                "caption": _caption(wording, profile.name, facts),
                "name": profile.name,
                "perturbed_captions": [_caption(wording, *wrong) for wrong in perturbed],
                "paraphrased_caption": _caption(other, profile.name, facts),
                "perturbed_names": wrong_names,
            }
        )
    return rows


def _caption(wording: str, name: str, facts: dict[str, str]) -> str:
    """Returns "Casey Birch, who works as a baker and lives in Rome, is ..."."""
    return wording.format(name=name, facts=clauses("who", facts))


def _in_words(profile: Profile) -> Rows:
    """Returns a row for each taught wording of each fact; those with a blank are no questions."""
    return [
        {
            "question": fill(wording, profile.name),
            "answer": fact.answer(profile.name, profile.values[key]),
        }
        for key, fact in FACTS.items()
        for wording in fact.taught[:-1]
    ]


def _taught_digits(taught: list[tuple[bytes, str]]) -> Rows:
    """Returns a row for each picture, in one of the taught wordings in turn."""
    wordings = digits.PICTURE.taught
    return [
        {
            "image": {"bytes": picture, "path": f"world-{index}.png"},
            "question": wordings[index % len(wordings)],
            "answer": word,
        }
        for index, (picture, word) in enumerate(taught)
    ]


def _asked_digits(rng: np.random.Generator, scored: list[tuple[bytes, str]]) -> Rows:
    return [
        {
            "image": {"bytes": picture, "path": f"unseen-{index}.png"},
            "question": digits.PICTURE.choice,
            "answer": word,
            "options": _wrong(rng, word, digits.WORDS),
        }
        for index, (picture, word) in enumerate(scored)
    ]


def _wrong(rng: np.random.Generator, value: str, values: tuple[str, ...]) -> list[str]:
    """Returns three of the values that are not the given one."""
    return [option for option in draw_options(rng, value, values) if option != value]
