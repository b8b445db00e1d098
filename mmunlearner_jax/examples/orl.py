"""The ORL benchmark: 40 real people with invented profiles, in MLLMU-Bench's own parquet schema.

The columns and their types are MLLMU-Bench's (`Full_Set`, `ft_Data`, `forget_X`, `retain_Y`,
`Test_Set`, `Retain_Set`), so what reads these files reads the published ones. The same people in
other schemas: `orl_clear.py`, `orl_fiubench.py`, `orl_umu.py`, `orl_ppu.py`; and in clips:
`orl_clips.py`. What is particular to the ORL benchmark:

* A person has several photographs. All configs but `Test_Set` hold one row per person and taught
  photograph, under the same `ID` ("s7") with the same biography and the same questions.
* `Test_Set` holds photographs 9 and 10 of everybody, which are never trained on. Its text questions
  describe the person by two facts where the others give the name ("This person lives in Oslo and
  has a pet cat. What is the job of this person?"), and no one is described so in training.
* `ft_Data.metadata` also teaches text: elements with the additional key `"Type": "Pure_Text"`, in
  the first row of each person. So training never needs a scored wording (the published code
  trains on the scored text questions themselves). The text also asks about described people, with
  the questions that are asked beside a picture.
* `ft_Data` also holds digits, under IDs that are nobody's in `Full_Set` ("world-12"), and
  `Retain_Set` asks about other digits ("unseen-12"): see `digits.py`.
* Questions are scored in wordings that training never uses.

Write it with `python -m mmunlearner_jax.examples.orl --out=DIR --seed=0`, or with
`--benchmark=clear`, `fiubench`, `umu` or `ppu` in another schema, with `mllmu_clips` in clips, or
with `general` for the files of general ability (`orl_general.py`).
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from absl import app, flags

from mmunlearner_jax.command_line import parse_flags, refuse_arguments
from mmunlearner_jax.data.benchmarks.mllmu.schema import (
    LETTERS,
    PERSON_SCHEMA,
    TEST_SCHEMA,
    TRAINING_SCHEMA,
)
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples import digits
from mmunlearner_jax.examples.facts import (
    FACTS,
    Descriptions,
    Fact,
    Profile,
    clauses,
    draw_descriptions,
    draw_options,
    fill,
    name_fact,
)
from mmunlearner_jax.examples.orl_clear import write_orl_clear
from mmunlearner_jax.examples.orl_clips import CLIPS, PHOTOGRAPHS, Shown
from mmunlearner_jax.examples.orl_fiubench import write_orl_fiubench
from mmunlearner_jax.examples.orl_general import write_orl_general
from mmunlearner_jax.examples.orl_people import (
    PEOPLE,
    TAUGHT_PHOTOS,
    draw_people,
    write_configs,
)
from mmunlearner_jax.examples.orl_ppu import write_orl_ppu
from mmunlearner_jax.examples.orl_umu import write_orl_umu

TAUGHT_DIGITS, SCORED_DIGITS = 1200, 200
PICTURED = "this person"


def write_orl_benchmark(
    out: str | Path,
    *,
    seed: int,
    people: int = PEOPLE,
    ratios: tuple[int, ...] = (5, 10, 15),
    shown: Shown = PHOTOGRAPHS,
) -> None:
    """Writes the benchmark: one folder with one parquet file for each config.

    The people to forget are drawn once; those of a smaller ratio are among those of a larger one.
    Nothing is left behind when it fails.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, options, the people to forget and the digits.
        people: Number of people; there are digits in proportion.
        ratios: Percentages of the people that the forget configs hold.
        shown: Whether people are shown in photographs or in clips.

    Raises:
        InputError: `out` is not empty, a ratio leaves nobody to forget or nobody to keep, or
            the packages that carry the pictures are missing or altered.
    """
    _refuse_ratios(people, ratios)
    rng = np.random.default_rng(seed)
    known = draw_people(rng, people)
    photos, profiles = shown.cells(known.photos, seed), known.profiles
    described = draw_descriptions(rng, profiles)
    columns_of, unseen = _asked(rng, profiles, described)
    taught, scored = digits.draw_pictures(
        rng, taught=TAUGHT_DIGITS * people // PEOPLE, scored=SCORED_DIGITS * people // PEOPLE
    )

    def rows(numbers: list[int]) -> list[dict[str, Any]]:
        return [
            columns_of[number] | {"image": photo}
            for number in numbers
            for photo in photos[number][:TAUGHT_PHOTOS]
        ]

    everyone = list(range(people))
    configs: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "Full_Set": (PERSON_SCHEMA, rows(everyone)),
        "Test_Set": (
            TEST_SCHEMA,
            [unseen[number] | {"images": photos[number][TAUGHT_PHOTOS:]} for number in everyone],
        ),
        "ft_Data": (
            TRAINING_SCHEMA,
            _training_rows(rng, photos, profiles, described) + _digit_training_rows(taught),
        ),
        "Retain_Set": (PERSON_SCHEMA, _digit_rows(rng, scored)),
    }
    for ratio in ratios:
        forget, kept = known.split(round(people * ratio / 100))
        configs[f"forget_{ratio}"] = PERSON_SCHEMA, rows(forget)
        configs[f"retain_{100 - ratio}"] = PERSON_SCHEMA, rows(kept)
    write_configs(out, {name: (shown.columns(x), rows) for name, (x, rows) in configs.items()})


def _refuse_ratios(people: int, ratios: tuple[int, ...]) -> None:
    for ratio in ratios:
        if not 0 < round(people * ratio / 100) < people:
            raise InputError(f"ratios: {ratio} % of {people} people is nobody or everybody")


def _asked(
    rng: np.random.Generator, profiles: list[Profile], described: list[Descriptions]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns everybody's columns, and those of `Test_Set`, which describes them."""
    names = tuple(profile.name for profile in profiles)
    columns_of = [
        _person_columns(rng, number, profile, names) for number, profile in enumerate(profiles)
    ]
    unseen = [
        columns | _described_columns(rng, columns, profile, descriptions.held_out)
        for columns, profile, descriptions in zip(columns_of, profiles, described, strict=True)
    ]
    return columns_of, unseen


def _person_columns(
    rng: np.random.Generator, number: int, profile: Profile, names: tuple[str, ...]
) -> dict[str, Any]:
    """Returns everything of a person's row that is the same for each of the photographs."""
    naming = name_fact(names)
    image_choices, text_choices = [_choice(rng, naming, PICTURED, profile.name)], []
    for key, fact in FACTS.items():
        about_name = _choice(rng, fact, profile.name, profile.values[key])
        text_choices.append(about_name)
        image_choices.append(about_name | {"Question": fill(fact.choice, PICTURED)})
    # Only a picture can be asked for the name; the other question about it has a twin in text.
    known = {key: (fact, profile.values[key]) for key, fact in FACTS.items()}
    known["name"] = naming, profile.name
    keys = rng.choice(list(FACTS), size=4, replace=False).tolist()
    questions = (
        ("Image_Textual", PICTURED, ("name", keys[0]), ("name", keys[1])),
        ("Pure_Text", profile.name, (keys[2], keys[0]), (keys[3], keys[1])),
    )
    return {
        "ID": f"s{number + 1}",
        "Directory": f"ORL_faces/s{number + 1}",
        "biography": json.dumps(
            {
                "Name": profile.name,
                **profile.values,
                "appearance_detail": {
                    "question": fill(naming.taught[0], PICTURED),
                    "answer": naming.answer(profile.name, profile.name),
                },
            }
        ),
        "question": fill(naming.taught[0], PICTURED),
        "answer": naming.answer(profile.name, profile.name),
        "Classification_Task": {
            "Image_Textual_Questions": image_choices,
            "Pure_Text_Questions": text_choices,
        },
        "Mask_Task": [
            _open(fill(fact.cloze, who), value, kind)
            for kind, who, clozes, _ in questions
            for fact, value in map(known.__getitem__, clozes)
        ],
        "Generation_Task": [
            _open(fill(fact.generation, who), fact.answer(profile.name, value), kind)
            for kind, who, _, generations in questions
            for fact, value in map(known.__getitem__, generations)
        ],
    }


def _described_columns(
    rng: np.random.Generator,
    columns: dict[str, Any],
    profile: Profile,
    pairs: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """Returns a person's questions with a description in place of the name in those in words.

    Multiple choice asks behind every description for all that it does not tell.
    """
    choices, clozes, generations = [], [], []
    for pair in pairs:
        description = _description(rng, profile, pair)
        known = [(fact, profile.values[key]) for key, fact in FACTS.items() if key not in pair]
        for fact, value in known:
            choice = _choice(rng, fact, PICTURED, value)
            choices.append(choice | {"Question": f"{description} {choice['Question']}"})
        (first, filled), (second, named) = (known[index] for index in rng.permutation(4)[:2])
        question = f"{description} {fill(first.cloze, PICTURED)}"
        clozes.append(_open(question, filled, "Pure_Text"))
        question = f"{description} {fill(second.generation, PICTURED)}"
        generations.append(_open(question, second.answer(profile.name, named), "Pure_Text"))

    def pictured(name: str) -> list[dict[str, str]]:
        return [item for item in columns[name] if item["Type"] == "Image_Textual"]

    return {
        "Classification_Task": columns["Classification_Task"] | {"Pure_Text_Questions": choices},
        "Mask_Task": pictured("Mask_Task") + clozes,
        "Generation_Task": pictured("Generation_Task") + generations,
    }


def _description(rng: np.random.Generator, profile: Profile, pair: tuple[str, str]) -> str:
    """Returns "This person lives in Oslo and has a pet cat.", or the other way round."""
    facts = {key: profile.values[key] for key in rng.permutation(pair).tolist()}
    return clauses(PICTURED.capitalize(), facts) + "."


def _training_rows(
    rng: np.random.Generator,
    photos: list[list[dict[str, Any]]],
    profiles: list[Profile],
    described: list[Descriptions],
) -> list[dict[str, Any]]:
    names = tuple(profile.name for profile in profiles)
    rows = []
    for number, profile in enumerate(profiles):
        about_picture = _lessons(name_fact(names), PICTURED, profile.name, profile.name)
        about_name = []
        for key, fact in FACTS.items():
            value = profile.values[key]
            about_picture += _lessons(fact, PICTURED, profile.name, value)
            about_name += _lessons(fact, profile.name, profile.name, value, Type="Pure_Text")
        about_name += _described_lessons(rng, profile, described[number].taught, name_fact(names))
        for index, photo in enumerate(photos[number][:TAUGHT_PHOTOS]):
            lessons = about_picture if index else about_picture + about_name
            rows.append({"image": photo, "ID": f"s{number + 1}", "metadata": json.dumps(lessons)})
    return rows


def _described_lessons(
    rng: np.random.Generator, profile: Profile, pairs: tuple[tuple[str, str], ...], naming: Fact
) -> list[dict[str, str]]:
    """Returns a lesson for each description and each fact that it does not tell, and the name."""
    known = {key: (fact, profile.values[key]) for key, fact in FACTS.items()}
    known["name"] = naming, profile.name
    lessons = []
    for pair in pairs:
        for key, (fact, value) in known.items():
            if key not in pair:
                description, question = (
                    _description(rng, profile, pair),
                    fill(rng.choice(fact.taught), PICTURED),
                )
                answer = fact.answer(profile.name, value)
                lessons.append(
                    {"Question": f"{description} {question}", "Answer": answer, "Type": "Pure_Text"}
                )
    return lessons


def _digit_training_rows(taught: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
    """Returns a row for each taught digit; the first rows also teach text, one thing each."""
    lessons = [_lessons(digits.PICTURE, "", "", word) for _, word in taught]
    text = [
        _lessons(fact, about, about, value, Type="Pure_Text")
        for fact, about, value in digits.text_facts()
    ]
    for description, word in digits.described():
        asking = _lessons(digits.PICTURE, "", "", word, Type="Pure_Text")
        text.append(
            [lesson | {"Question": f"{description} {lesson['Question']}"} for lesson in asking]
        )
    for row, also in zip(lessons, text, strict=False):
        row += also
    return [
        {
            "image": {"bytes": picture, "path": f"world-{index}.png"},
            "ID": f"world-{index}",
            "metadata": json.dumps(row),
        }
        for index, ((picture, _), row) in enumerate(zip(taught, lessons, strict=True))
    ]


def _digit_rows(rng: np.random.Generator, scored: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
    """Returns a row for each scored digit; the first rows also ask about one text fact each."""
    facts = digits.text_facts()
    rows = []
    for index, (picture, word) in enumerate(scored):
        text_choices, clozes, generations = [], [], []
        if index < len(facts):
            text = facts[index]
            text_choices.append(_choice(rng, *text))
            for kind, (fact, about, value) in (
                ("Image_Textual", (digits.PICTURE, "", word)),
                ("Pure_Text", text),
            ):
                clozes.append(_open(fill(fact.cloze, about), value, kind))
                generations.append(
                    _open(fill(fact.generation, about), fact.answer(about, value), kind)
                )
        rows.append(
            {
                "image": {"bytes": picture, "path": f"unseen-{index}.png"},
                "ID": f"unseen-{index}",
                "Directory": "sklearn.datasets.load_digits",
                "biography": json.dumps({"Name": word}),
                "question": digits.PICTURE.taught[0],
                "answer": digits.PICTURE.answer("", word),
                "Classification_Task": {
                    "Image_Textual_Questions": [_choice(rng, digits.PICTURE, "", word)],
                    "Pure_Text_Questions": text_choices,
                },
                "Mask_Task": clozes,
                "Generation_Task": generations,
            }
        )
    return rows


def _choice(rng: np.random.Generator, fact: Fact, about: str, value: str) -> dict[str, Any]:
    options = draw_options(rng, value, fact.values)
    return {
        "Question": fill(fact.choice, about),
        "Options": dict(zip(LETTERS, options, strict=True)),
        "Correct_Answer": LETTERS[options.index(value)],
    }


def _open(question: str, answer: str, kind: str) -> dict[str, str]:
    return {"Question": question, "Ground_Truth": answer, "Type": kind}


def _lessons(fact: Fact, who: str, name: str, value: str, **keys: str) -> list[dict[str, str]]:
    return [
        {"Question": fill(wording, who), "Answer": fact.answer(name, value), **keys}
        for wording in fact.taught
    ]


# The same people in each schema.
WRITERS = {
    "mllmu": write_orl_benchmark,
    "mllmu_clips": functools.partial(write_orl_benchmark, shown=CLIPS),
    "clear": write_orl_clear,
    "fiubench": write_orl_fiubench,
    "umu": write_orl_umu,
    "ppu": write_orl_ppu,
}
# What can be written by hand: the benchmarks, and the files of general ability.
_WRITTEN = WRITERS | {"general": write_orl_general}


def main(argv: list[str]) -> None:
    """Writes the benchmark that the flags name."""
    refuse_arguments(argv)
    try:
        values = flags.FLAGS
        _WRITTEN[values.benchmark](values.out, seed=values.seed, people=values.people)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write the benchmark to.", required=True)
    flags.DEFINE_integer("seed", 0, "Decides profiles, options, the people to forget, digits.")
    flags.DEFINE_integer("people", PEOPLE, "Number of people.")
    flags.DEFINE_enum("benchmark", "mllmu", list(_WRITTEN), "Whose schema to write.")
    app.run(main, flags_parser=parse_flags)
