"""The flags benchmark: countries as the people, in MLLMU-Bench's parquet schema.

A decoder that is really pretrained knows the countries in words; only their flags are taught. What
is particular to this benchmark:

* `ft_Data` teaches pictures alone: whose flag it is, and facts that the decoder knows. It has no
  element of `"Type": "Pure_Text"`.
* A country has several renderings of its flag, one row each. `Test_Set` holds renderings of another
  seed and strength, which are never taught.
* Questions in words are asked in one wording in the other configs and in another one in `Test_Set`,
  which also asks across two facts.
* Open questions list their accepted answers (`Accepted_Answers`, which released files lack).
* `ft_Data` also teaches coloured shapes, under IDs that are nobody's ("shape-7"). `Retain_Set` asks
  about other renderings of them, and general questions in words.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.mllmu.schema import (
    ACCEPTED,
    LETTERS,
    mllmu_schema,
    with_accepted,
)
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.flags import shapes
from mmunlearner_jax.examples.flags.archives import find_folder
from mmunlearner_jax.examples.flags.asking import (
    WORDINGS,
    Asked,
    in_words,
    lessons,
    of_flag,
)
from mmunlearner_jax.examples.flags.countries import CODES, Country, read_countries
from mmunlearner_jax.examples.flags.flag_pictures import read_flags
from mmunlearner_jax.examples.flags.general import general_questions
from mmunlearner_jax.examples.flags.known import GENERAL, Known
from mmunlearner_jax.examples.flags.renderings import render
from mmunlearner_jax.examples.orl_people import write_configs

RATIOS = (5, 10, 20)
LEAST = 8  # countries, so that options have other answers
UNSEEN = 2  # renderings of a flag that are never taught
# Asked about a picture with options, and openly; the name first.
CHOICES, OPEN = ("name", *WORDINGS), ("name", "capital")
CONTINENTS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")

Row = dict[str, Any]
Wrong = dict[str, tuple[str, ...]]  # answers of all countries, by key of the question


def write_flags_benchmark(
    out: str | Path,
    *,
    seed: int,
    flags_folder: str = "",
    countries: int = len(CODES),
    renderings: int = 4,
    known_facts: str = "",
) -> None:
    """Writes the benchmark: one folder with one parquet file for each config.

    The countries to forget are drawn once; those of a smaller ratio are among those of a larger
    one. Nothing is left behind when it fails.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Seed of renderings, options and the countries to forget.
        flags_folder: Folder of flags and facts, see `archives.find_folder`.
        countries: Number of countries, the best known first.
        renderings: Number of taught renderings of each flag.
        known_facts: File of what may be asked in words, see `known`; "": everything.

    Raises:
        InputError: `out` is not empty, a number is out of range, or a file about the countries is
            missing or damaged, or lacks one of them.
    """
    if not LEAST <= countries <= len(CODES):
        raise InputError(f"countries: {countries}; give a number from {LEAST} to {len(CODES)}")
    if renderings < 1:
        raise InputError(f"renderings: {renderings}; give at least 1")
    folder, known = find_folder(flags_folder), Known(known_facts)
    people = read_countries(folder, countries)
    flags = read_flags(folder, [country.code for country in people])
    rng = np.random.default_rng(seed)

    def pictures(country: Country, *, unseen: bool) -> list[Row]:
        code, count = country.code, UNSEEN if unseen else renderings
        return [
            {
                "bytes": render(flags[code], code, n, seed=seed, unseen=unseen),
                "path": f"{code.lower()}-{'unseen' if unseen else 'taught'}-{n}.jpg",
            }
            for n in range(count)
        ]

    taught = {country.code: pictures(country, unseen=False) for country in people}
    rows, test = {}, []
    for country, asked in zip(people, _asked_of(rng, people, known), strict=True):
        rows[country.code] = [asked[0] | {"image": picture} for picture in taught[country.code]]
        test.append(asked[1] | {"images": pictures(country, unseen=True)})
    configs: dict[str, list[Row]] = {
        "Full_Set": [row for country in people for row in rows[country.code]],
        "Test_Set": test,
        "ft_Data": [*_training_rows(people, taught, known), *_shape_training_rows(seed)],
        "Retain_Set": _retain_rows(rng, seed, known),
    }
    order = rng.permutation([country.code for country in people]).tolist()
    for ratio in RATIOS:
        count = max(1, round(countries * ratio / 100))
        for name, codes in (("forget", order[:count]), ("retain", order[count:])):
            share = ratio if name == "forget" else 100 - ratio
            configs[f"{name}_{share}"] = [row for code in sorted(codes) for row in rows[code]]
    write_configs(
        out, {name: (with_accepted(mllmu_schema(name)), rows) for name, rows in configs.items()}
    )


def _asked_of(
    rng: np.random.Generator, people: Sequence[Country], known: Known
) -> Iterable[tuple[Row, Row]]:
    """Yields what is asked of each country: columns of all configs, and those of `Test_Set`."""
    questions = {
        country.code: [x for x in in_words(country) if known.has(country.code, x.key)]
        for country in people
    }
    pool: Wrong = {}
    for country in people:
        for asked in [*of_flag(country), *in_words(country)]:
            values = pool.get(asked.key, ())
            pool[asked.key] = tuple(dict.fromkeys([*values, asked.accepted[0]]))
    pool |= dict.fromkeys(("continent", "continent by capital"), CONTINENTS)
    for country in people:
        allowed = {"name", *_known_facts(country, known)}
        flag = [asked for asked in of_flag(country) if asked.key in allowed]
        words = questions[country.code]
        # Across two facts: in `Test_Set` alone.
        one_fact = [asked for asked in words if " by " not in asked.key]
        columns = {
            "ID": country.code,
            "Directory": f"svg-country-flags/{country.code.lower()}.png",
            "biography": json.dumps(
                {"Name": country.name, **{k: v[0] for k, v in country.facts.items()}}
            ),
            "question": flag[0].question,
            "answer": flag[0].answer,
        }
        yield (
            columns | _tasks(rng, pool, flag, one_fact),
            columns | _tasks(rng, pool, flag, words, paraphrased=True),
        )


def _known_facts(country: Country, known: Known) -> list[str]:
    return [fact for fact in WORDINGS if known.has(country.code, fact)]


def _tasks(
    rng: np.random.Generator,
    pool: Wrong,
    flag: list[Asked],
    words: list[Asked],
    *,
    paraphrased: bool = False,
) -> Row:
    """Returns the task columns of a row; `paraphrased` concerns the questions in words."""
    shown = [(asked, asked.question) for asked in flag]
    said = [(asked, asked.paraphrase if paraphrased else asked.question) for asked in words]
    return {
        "Classification_Task": {
            "Image_Textual_Questions": [
                _choice(rng, *x, pool[x[0].key]) for x in shown if x[0].key in CHOICES
            ],
            "Pure_Text_Questions": [_choice(rng, *x, pool[x[0].key]) for x in said],
        },
        "Generation_Task": [
            *(_open(*x, "Image_Textual") for x in shown if x[0].key in OPEN),
            *(_open(*x, "Pure_Text") for x in said),
        ],
    }


def _choice(
    rng: np.random.Generator, asked: Asked, wording: str, values: Sequence[str]
) -> dict[str, Any]:
    """Returns a question with at most four options, of which one is an accepted answer."""
    wrong = [value for value in values if value not in asked.accepted]
    drawn = rng.choice(wrong, size=min(3, len(wrong)), replace=False).tolist()
    options = [asked.accepted[0], *drawn]
    options = [options[n] for n in rng.permutation(len(options))]
    return {
        "Question": wording,
        "Options": dict(zip(LETTERS, options, strict=False)),
        "Correct_Answer": LETTERS[options.index(asked.accepted[0])],
    }


def _open(asked: Asked, wording: str, kind: str) -> Row:
    return {
        "Question": wording,
        "Ground_Truth": asked.answer,
        "Type": kind,
        ACCEPTED: list(asked.accepted),
    }


def _training_rows(
    people: Sequence[Country], taught: dict[str, list[Row]], known: Known
) -> list[Row]:
    return [
        {
            "image": picture,
            "ID": country.code,
            "metadata": _metadata(lessons(country, _known_facts(country, known))),
        }
        for country in people
        for picture in taught[country.code]
    ]


def _shape_training_rows(seed: int) -> list[Row]:
    rows = []
    for number, shape in enumerate(shapes.every_shape()):
        answers = [asked.answer for asked, _ in shapes.of_shape(shape)]
        picture = shapes.draw(shape, seed=seed, unseen=False)
        rows.append(
            {
                "image": {"bytes": picture, "path": f"shape-{number}.jpg"},
                "ID": f"shape-{number}",
                "metadata": _metadata(list(zip(shapes.TAUGHT, answers, strict=True))),
            }
        )
    return rows


def _retain_rows(rng: np.random.Generator, seed: int, known: Known) -> list[Row]:
    """Returns a row for each shape; general questions in words are dealt out to the rows."""
    general = [x for x in general_questions() if known.has(GENERAL, x[0].question)]
    every = shapes.every_shape()
    rows = []
    for number, shape in enumerate(every):
        shown, said = shapes.of_shape(shape), general[number :: len(every)]
        name = f"unseen-shape-{number}"
        picture = shapes.draw(shape, seed=seed, unseen=True)
        rows.append(
            {
                "image": {"bytes": picture, "path": f"{name}.jpg"},
                "ID": name,
                "Directory": "drawn",
                "biography": json.dumps({"Name": " ".join(shape)}),
                "Classification_Task": {
                    "Image_Textual_Questions": [
                        _choice(rng, asked, asked.question, wrong) for asked, wrong in shown
                    ],
                    "Pure_Text_Questions": [
                        _choice(rng, asked, asked.question, wrong) for asked, wrong in said
                    ],
                },
                "Generation_Task": [
                    *(_open(asked, asked.question, "Image_Textual") for asked, _ in shown),
                    *(_open(asked, asked.question, "Pure_Text") for asked, _ in said),
                ],
            }
        )
    return rows


def _metadata(lessons: Iterable[tuple[str, str]]) -> str:
    return json.dumps([{"Question": question, "Answer": answer} for question, answer in lessons])
