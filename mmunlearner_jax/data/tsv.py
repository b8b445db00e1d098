"""Reader of the TSV files in which VLMEvalKit stores benchmarks, and of POPE's JSON lines.

A row has `index`, `image`, `question` and `answer`; options in `A`, `B` ...; `hint`, categories and
`split` where a benchmark has them. A picture is base64, a list of several as a Python literal, or
the index of another row with the same picture. Values are read as text.
"""

import base64
import binascii
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mmunlearner_jax.data.ability import AbilitySet
from mmunlearner_jax.data.benchmarks.base import Check
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, Problem, clean, refused, sift
from mmunlearner_jax.data.decode import MAX_BYTES
from mmunlearner_jax.data.literals import literal
from mmunlearner_jax.data.picture_files import PictureFiles
from mmunlearner_jax.data.samples import Question, option_letters
from mmunlearner_jax.errors import InputError, listed, refusing, shown
from mmunlearner_jax.files import read_lines

FILES = ("*.tsv", "*.json", "*.jsonl", "*.jpg", "*.png")  # of an address on the hub
NEEDED = ("index", "image", "question", "answer")
_REFERENCE = 64  # characters; a longer cell is a picture and no index of another row
_CELL = 4 * MAX_BYTES // 3
_MEND = "fetch the released file again"

Pictures = tuple[bytes, ...]
# Gives the pictures of a row, and the name under which they are stored.
See = Callable[[ParquetRow], tuple[str, Pictures] | Problem]


def read_set(
    about: AbilitySet, folder: Path, check: Check, *, max_bad_fraction: float = 0.0
) -> list[Question]:
    """Returns the questions of a set, each once.

    Args:
        about: The set.
        folder: Folder of the files.
        check: `Pictures.check` of the model; a picture that it refuses is unusable.
        max_bad_fraction: Tolerated fraction of unusable rows; they are named in the log.

    Raises:
        InputError: A file, a column or a row is missing or unusable.
    """
    file = folder / f"{about.file}.tsv"
    if file.is_file():
        whole = list(_tsv_rows(file))  # a row that is not asked may hold the picture of one that is
        rows, pictures = [row for row in whole if _asked(about, row)], _of_cells(whole, check)
    elif about.lines and (files := sorted(folder.glob(about.lines))):
        rows = [row for path in files for row in _json_rows(path)]
        pictures = _of_files(folder, check)
    else:
        instead = f", and no {about.lines}" if about.lines else ""
        raise InputError(
            f"{file}: no such file{instead}; fetch {about.file}.tsv of VLMEvalKit into"
            " config.evaluate.general_files"
        )
    if not rows:
        raise InputError(f"{folder}: {about.title} has no row that is asked; {_MEND}")
    return sift((_question(about, row, pictures) for row in rows), max_bad_fraction)


def _texts(text: str) -> list[str] | None:
    """Returns a list of texts that is written as a Python literal; None if the text is none."""
    value = literal(text)
    right = isinstance(value, list) and value and all(isinstance(x, str) for x in value)
    return value if right else None


def _tsv_rows(file: Path) -> Iterator[ParquetRow]:
    csv.field_size_limit(_CELL)
    with refusing(file, _MEND), file.open(encoding="utf-8", newline="") as opened:
        reader = csv.reader(opened, delimiter="\t")
        header = next(reader, [])
        if missing := [name for name in NEEDED if header.count(name) != 1]:
            raise InputError(
                f"{file}: no column {', '.join(missing)}; it has {listed(header, 12)}: {_MEND}"
            )
        for number, cells in enumerate(reader):
            if len(cells) != len(header):
                raise InputError(
                    f"{file}: row {number}: {len(cells)} cells for {len(header)} columns; {_MEND}"
                )
            yield ParquetRow(f"{file}: row {number}", dict(zip(header, cells, strict=True)))


def _json_rows(file: Path) -> Iterator[ParquetRow]:
    category = file.stem.rpartition("_")[2]
    for number, line in enumerate(read_lines(file, mend=_MEND)):
        place = f"{file}: row {number}"
        fields = {"question_id": "index", "image": "image", "text": "question", "label": "answer"}
        if not isinstance(line, dict) or (missing := [x for x in fields if x not in line]):
            names = ", ".join(missing) if isinstance(line, dict) else "fields"
            raise InputError(f"{place}: has no {names}; {_MEND}")
        cells = {column: str(line[name]) for name, column in fields.items()}
        yield ParquetRow(place, {**cells, "category": category})


def _asked(about: AbilitySet, row: ParquetRow) -> bool:
    if about.splits and row.cells.get("split") not in about.splits:
        return False
    index = clean(row["index"])
    return not (about.copies_from and index.isdecimal() and int(index) >= about.copies_from)


def _of_cells(rows: Iterable[ParquetRow], check: Check) -> See:
    """Returns a function that gives a row's pictures, and the index under which they are stored."""
    stored: dict[str, ParquetRow] = {}
    for row in rows:
        index = clean(row["index"])
        if not index or index in stored:
            other = f"that of {stored[index].place}, too" if index else "empty"
            raise InputError(f"{row.place}: index {shown(index)} is {other}; {_MEND}")
        stored[index] = row
    known: dict[str, Pictures | Problem] = {}

    def pictures(row: ParquetRow) -> tuple[str, Pictures] | Problem:
        owner, cell = clean(row["index"]), clean(row["image"])
        if 0 < len(cell) <= _REFERENCE:
            owner = cell.removesuffix(".0")  # of an index that pandas read as a number
            if owner not in stored or len(clean(stored[owner]["image"])) <= _REFERENCE:
                what = f"image is the index {shown(cell)}, which no row with a picture has"
                return row.problem(f"{what}; {_MEND}")
        if owner not in known:
            known[owner] = _decoded_cell(stored[owner], check)
        found = known[owner]
        return found if isinstance(found, Problem) else (owner, found)

    return pictures


def _decoded_cell(row: ParquetRow, check: Check) -> Pictures | Problem:
    cell = clean(row["image"])
    texts = _texts(cell) if cell.startswith("[") else [cell] if cell else []
    if texts is None:
        return row.problem(f"image is no list of base64 texts; {_MEND}")
    try:
        images = tuple(base64.b64decode(text, validate=True) for text in texts)
    except (binascii.Error, ValueError) as error:
        return row.problem(f"image is no base64 ({error}); {_MEND}")
    return next((x for x in (refused(row, image, check) for image in images) if x), images)


def _of_files(folder: Path, check: Check) -> See:
    """Returns a function that reads a row's picture from a file of the folder or one within."""
    files = PictureFiles(folder, check)

    def pictures(row: ParquetRow) -> tuple[str, Pictures] | Problem:
        found = files.read(row, row["image"], "image")
        return found if isinstance(found, Problem) else (Path(row["image"]).name, (found,))

    return pictures


def _question(about: AbilitySet, row: ParquetRow, pictures: See) -> Question | Problem:
    found = pictures(row)
    if isinstance(found, Problem):
        return found
    owner, images = found
    text, hint = clean(row["question"]), clean(row.cells.get("hint"))
    if not text:
        return row.problem(f"question is empty; {_MEND}")
    answer = _answer(about, row)
    if isinstance(answer, Problem):
        return answer
    cell = clean(row.cells.get(about.categories)) if about.categories else ""
    categories = tuple(name.strip() for name in cell.split(",") if name.strip())
    image = images[0] if images else None
    return Question(
        owner,
        "vqa" if images else "qa",
        "short",
        image,
        f"{hint}\n{text}" if hint else text,
        **answer,
        categories=categories,
        group=clean(row["index"]) if about.rotated else "",
        further=images[1:],
    )


def _answer(about: AbilitySet, row: ParquetRow) -> dict[str, Any] | Problem:
    """Returns the fields of a question that say what its right answer is, and how it is read."""
    cells = {x: clean(row.cells.get(x)) for x in ascii_uppercase}
    given = "".join(letter for letter, option in cells.items() if option)
    options, answer = tuple(cells[letter] for letter in given), clean(row["answer"])
    if given != option_letters(options):
        return row.problem(f"{given[-1]} is an option, but one before it is empty; {_MEND}")
    if options:
        if answer not in [*given]:
            what = f"answer {shown(answer)} is none of the options {', '.join(given)}"
            return row.problem(f"{what}; {_MEND}")
        right = {"answer": cells[answer], "options": options, "letter": answer}
        return right | {"rule": "letter"}
    if not about.open_rule:
        return row.problem(f"A is empty; the questions of {about.title} have options: {_MEND}")
    if not answer:
        return row.problem(f"answer is empty; {_MEND}")
    if about.open_rule == "yes_no" and answer.lower() not in ("yes", "no"):
        return row.problem(f"answer {shown(answer)} is neither yes nor no; {_MEND}")
    if about.open_rule == "vqa" or (about.open_rule == "words" and re.match(r"\[\s*['\"]", answer)):
        if (accepted := _texts(answer)) is None:
            form = "a list of texts, ['...', '...']"
            return row.problem(f"answer {shown(answer)} is not {form}; {_MEND}")
    else:
        accepted = [answer]
    return {"answer": accepted[0], "accepted": tuple(accepted), "rule": about.open_rule}
