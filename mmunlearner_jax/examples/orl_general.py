"""General ability on faces and digits: a TSV file for each set, in VLMEvalKit's form.

The faces are those of `orl_people`, the digits scikit-learn's. The answers follow from the pictures
alone, so a set can be asked whole without its released file.

    python -m mmunlearner_jax.examples.orl --benchmark=general --out=DIR --seed=0
"""

import base64
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmunlearner_jax.examples import digits
from mmunlearner_jax.examples.facts import draw_options
from mmunlearner_jax.examples.orl_people import PEOPLE, draw_people, writing_folder

THINGS = ("face", "digit", "flower", "house")
HINTS = {"face": "It has eyes.", "digit": "It counts something."}
_CATEGORIES = ("random", "popular", "adversarial")
_COPY = 1_000_000  # from this index on, MMBench's file repeats questions with rotated options

Picture = tuple[str, str]  # a picture in base64, and what it shows
Row = dict[str, str]


def write_orl_general(out: str | Path, *, seed: int, people: int = PEOPLE) -> None:
    """Writes the files; `config.evaluate.general_files` takes the folder.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides which digits are shown, and the order of options.
        people: Number of faces, and of digits.

    Raises:
        InputError: `out` is not empty, or a package that carries the pictures is missing or
            altered.
    """
    rng = np.random.default_rng(seed)
    faces = [(photos[0]["bytes"], "face") for photos in draw_people(rng, people).photos]
    drawn, _ = digits.draw_pictures(rng, taught=people, scored=0)
    numerals = [_encoded(*picture) for picture in drawn]
    shown = [_encoded(*face) for face in faces] + [(image, "digit") for image, _ in numerals]
    files = {
        "POPE": _presence(shown),
        "MMBench_DEV_EN": _things(shown, rng, "l2-category", copies=True),
        "MMStar": _things(shown, rng, "category"),
        "MMMU_DEV_VAL": _pairs(numerals, rng),
        "ScienceQA_TEST": _hinted(shown),
        "GQA_TestDev_Balanced": (
            _row(n, "Which digit is this?", word, image) for n, (image, word) in enumerate(numerals)
        ),
        "VizWiz": _answered(numerals),
    }
    with writing_folder(out) as folder:
        for name, rows in files.items():
            _write(folder / f"{name}.tsv", list(rows))


def _encoded(picture: bytes, shows: str) -> Picture:
    return base64.b64encode(picture).decode(), shows


def _row(index: int, question: str, answer: str, image: str, **cells: str) -> Row:
    own = {"index": str(index), "question": question, "answer": answer, "image": image}
    return own | cells


def _chosen(right: str, options: Sequence[str]) -> Row:
    """Returns the cells of a question with options."""
    cells = dict(zip("ABCD", options, strict=False))
    return cells | {"answer": "ABCD"[options.index(right)]}


def _presence(shown: list[Picture]) -> Iterator[Row]:
    """POPE: two questions about each picture, the second of which names the row of the first."""
    for n, (image, what) in enumerate(shown):
        for m, asked in enumerate(HINTS):
            cell = str(2 * n) if m else image
            question, answer = f"Is there a {asked} in the image?", "Yes" if asked == what else "No"
            yield _row(2 * n + m, question, answer, cell, category=_CATEGORIES[n % 3])


def _things(
    shown: list[Picture], rng: np.random.Generator, category: str, *, copies: bool = False
) -> Iterator[Row]:
    """MMBench and MMStar: what a picture shows, of four things."""
    for n, (image, what) in enumerate(shown):
        options = draw_options(rng, what, THINGS)
        cells = _chosen(what, options) | {category: f"what {what}s are"}
        yield _row(n, "What does the picture show?", "", image) | cells
        if copies:
            turned = _chosen(what, options[1:] + options[:1])
            yield _row(_COPY + n, "What does the picture show?", "", str(n)) | cells | turned


def _pairs(numerals: list[Picture], rng: np.random.Generator) -> Iterator[Row]:
    """MMMU: two pictures of each question, with options and without."""
    pairs = zip(numerals[::2], numerals[1::2], strict=False)
    for n, ((first, one), (second, other)) in enumerate(pairs):
        images, part = str([first, second]), {"split": "validation", "category": "counting"}
        question = "Which digit is in <image 1>, and which in <image 2>?"
        options = [f"{word} and {other}" for word in draw_options(rng, one, digits.WORDS)]
        yield _row(2 * n, question, "", images, **part) | _chosen(f"{one} and {other}", options)
        yield _row(2 * n + 1, "How many pictures are there?", "['2', 'two']", images, **part)


def _hinted(shown: list[Picture]) -> Iterator[Row]:
    """ScienceQA: a hint, and three options."""
    for n, (image, what) in enumerate(shown):
        options = THINGS[:3] if n % 2 else THINGS[2::-1]
        cells = _chosen(what, options) | {"hint": HINTS[what]}
        yield _row(n, "What does the picture show?", "", image) | cells


def _answered(numerals: list[Picture]) -> Iterator[Row]:
    """VizWiz: the answers of ten people, some of whom could not tell."""
    for n, (image, word) in enumerate(numerals):
        unsure = n % 4
        answers = [word] * (10 - unsure) + ["unanswerable"] * unsure
        yield _row(n, "Which digit is this?", str(answers), image)


def _write(file: Path, rows: list[Row]) -> None:
    """Writes a file as pandas writes it; a cell that a row lacks is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
