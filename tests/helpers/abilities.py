"""A file of each set of general ability, in the form in which it is released."""

import base64
import csv
import json
from pathlib import Path

from tests.helpers.benchmarks import png

FOUR = {"A": "red", "B": "green", "C": "blue", "D": "black"}


def encoded(grey: int) -> str:
    return base64.b64encode(png(grey)).decode()


def row(index: int, question: str, answer: str, image: str, **cells: str) -> dict[str, str]:
    return {"index": str(index), "question": question, "answer": answer, "image": image, **cells}


def choice(index: int, answer: str, image: str, **cells: str) -> dict[str, str]:
    return row(index, "Which color?", answer, image, **FOUR, category="sight", **cells)


def files() -> dict[str, list[dict[str, str]]]:
    """Returns the rows of each TSV file, by the file's name."""
    pope = "Is there a dog in the image?"
    return {
        "POPE": [
            row(0, pope, "Yes", encoded(10), category="random,popular"),
            row(1, "Is there a cat in the image?", "No", "0", category="adversarial"),
            row(2, pope, "No", encoded(20), category="random"),
        ],
        "MMBench_DEV_EN": [
            choice(7, "B", encoded(30), **{"l2-category": "color", "hint": "Look."}),
            choice(9, "D", encoded(40), **{"l2-category": "color"}),
            choice(1_000_007, "A", "7", **{"l2-category": "color"}),
        ],
        "MMStar": [choice(0, "A", encoded(50)), choice(1, "C", encoded(60))],
        "MMMU_DEV_VAL": [
            choice(1, "A", encoded(70), split="dev"),
            choice(2, "C", str([encoded(80), encoded(90)]), split="validation"),
            row(3, "How many?", "['7', 'seven']", encoded(91), split="validation"),
        ],
        "ScienceQA_TEST": [choice(0, "B", encoded(100), hint="Grass is green.") | {"D": ""}],
        "GQA_TestDev_Balanced": [
            row(201307251, "What is it?", "Cup.", encoded(110)),
            row(201307252, "Which color?", "red", "201307251"),
        ],
        "VizWiz": [
            row(0, "What is it?", str(["a cup"] * 2 + ["Cup"] * 2 + ["mug"] * 6), encoded(120)),
            row(1, "Which color?", str(["unanswerable"] * 10), encoded(130)),
        ],
    }


def write(folder: Path, tables: dict[str, list[dict[str, str]]] | None = None) -> Path:
    """Writes the TSV files as pandas writes them; a cell that a row lacks is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (tables or files()).items():
        columns = list(dict.fromkeys(column for cells in rows for column in cells))
        with (folder / f"{name}.tsv").open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, columns, delimiter="\t", restval="")
            writer.writeheader()
            writer.writerows(rows)
    return folder


def write_lines(folder: Path) -> Path:
    """Writes POPE as its authors release it: JSON lines by category, and pictures beside them."""
    (folder / "val2014").mkdir(parents=True)
    for grey in (10, 20):
        (folder / f"val2014/COCO_{grey}.png").write_bytes(png(grey))
    for category, grey in (("random", 10), ("adversarial", 20)):
        lines = [
            {"question_id": n, "image": f"COCO_{grey}.png", "text": text, "label": label}
            for n, (text, label) in enumerate((("Is there a dog?", "yes"), ("A cat?", "no")), 1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"coco_pope_{category}.json").write_text(text)
    return folder
