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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
    HOPS,
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
NOT_OPEN = ("continent", "language", "currency")  # asked about a flag with options alone
CONTINENTS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")

Row = dict[str, Any]
Put = tuple[Asked, str, Sequence[str]]  # a question, its wording, and what its options can be


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

    The countries to forget are drawn once, whatever is known of them; those of a smaller ratio are
    among those of a larger one. Nothing is left behind when it fails.

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
    order = rng.permutation([country.code for country in people]).tolist()
    taught = {
        code: _pictures(flag, code, renderings, seed=seed, unseen=False)
        for code, flag in flags.items()
    }
    rows, test = {}, []
    for country, asked in zip(people, _asked_of(rng, people, known), strict=True):
        code = country.code
        rows[code] = [asked[0] | {"image": picture} for picture in taught[code]]
        unseen = _pictures(flags[code], code, UNSEEN, seed=seed, unseen=True)
        test.append(asked[1] | {"images": unseen})
    configs: dict[str, list[Row]] = {
        "Full_Set": [row for of_country in rows.values() for row in of_country],
        "Test_Set": test,
        "ft_Data": [*_training_rows(people, taught, known), *_shape_training_rows(seed)],
        "Retain_Set": _retain_rows(rng, seed, known),
    }
    for ratio in RATIOS:
        count = max(1, round(countries * ratio / 100))
        configs[f"forget_{ratio}"] = _rows_of(order[:count], rows)
        configs[f"retain_{100 - ratio}"] = _rows_of(order[count:], rows)
    schemas = {name: with_accepted(mllmu_schema(name)) for name in configs}
    write_configs(out, {name: (schemas[name], rows) for name, rows in configs.items()})


def _rows_of(codes: Sequence[str], rows: Mapping[str, list[Row]]) -> list[Row]:
    return [row for code in sorted(codes) for row in rows[code]]


def _pictures(
    flag: Image.Image, code: str, count: int, *, seed: int, unseen: bool
) -> list[dict[str, Any]]:
    name = f"{code.lower()}-{'unseen' if unseen else 'taught'}"
    return [
        {"bytes": render(flag, code, n, seed=seed, unseen=unseen), "path": f"{name}-{n}.jpg"}
        for n in range(count)
    ]


def _asked_of(
    rng: np.random.Generator, people: Sequence[Country], known: Known
) -> Iterable[tuple[Row, Row]]:
    """Yields what is asked of each country: columns of all configs, and those of `Test_Set`."""
    pool: dict[str, tuple[str, ...]] = {}
    for country in people:
        for asked in [*of_flag(country), *in_words(country)]:
            values = pool.get(asked.key, ())
            pool[asked.key] = tuple(dict.fromkeys([*values, asked.accepted[0]]))
    pool |= dict.fromkeys(("continent", "continent by capital"), CONTINENTS)
    for country in people:
        facts = _known_facts(country, known)
        flag = [x for x in of_flag(country) if x.key in ("name", *facts)]
        words = [x for x in in_words(country) if known.has(country.code, x.key)]
        usual = {fact: answers[0] for fact, answers in country.facts.items()}
        columns = {
            "ID": country.code,
            "Directory": f"svg-country-flags/{country.code.lower()}.png",
            "biography": json.dumps({"Name": country.name, **usual}),
            "question": flag[0].question,
            "answer": flag[0].answer,
        }
        shown = [(x, x.question, pool[x.key]) for x in flag]
        said = [(x, x.question, pool[x.key]) for x in words if x.key not in HOPS]
        other = [(x, x.paraphrase, pool[x.key]) for x in words]
        yield columns | _tasks(rng, shown, said), columns | _tasks(rng, shown, other)


def _known_facts(country: Country, known: Known) -> list[str]:
    return [fact for fact in WORDINGS if known.has(country.code, fact)]


def _tasks(rng: np.random.Generator, shown: Sequence[Put], said: Sequence[Put]) -> Row:
    """Returns the task columns of a row.

    Args:
        rng: The only source of chance.
        shown: Questions about the picture; some facts are not asked openly (`NOT_OPEN`).
        said: Questions in words.
    """
    return {
        "Classification_Task": {
            "Image_Textual_Questions": [_choice(rng, *put) for put in shown],
            "Pure_Text_Questions": [_choice(rng, *put) for put in said],
        },
        "Generation_Task": [
            *(_open(put, "Image_Textual") for put in shown if put[0].key not in NOT_OPEN),
            *(_open(put, "Pure_Text") for put in said),
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


def _open(put: Put, kind: str) -> Row:
    asked, wording, _ = put
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
        columns = {
            "image": {"bytes": picture, "path": f"{name}.jpg"},
            "ID": name,
            "Directory": "drawn",
            "biography": json.dumps({"Name": " ".join(shape)}),
        }
        put = [[(asked, asked.question, wrong) for asked, wrong in x] for x in (shown, said)]
        rows.append(columns | _tasks(rng, *put))
    return rows


def _metadata(lessons: Iterable[tuple[str, str]]) -> str:
    return json.dumps([{"Question": question, "Answer": answer} for question, answer in lessons])
