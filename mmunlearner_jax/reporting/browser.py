"""All answers of a run for the page's browser: compressed, and as a table without scripts."""

import base64
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from mmunlearner_jax.reporting.cases import Case, Predictions

TASKS = {
    "classification": "Multiple choice",
    "cloze": "Fill in the blank",
    "generation": "Free answer",
    "naming": "Naming",
    "short": "Short answer",
}
ASKED = {"vqa": "with a picture", "qa": "in words"}
CHANGES = {
    (True, False): "right to wrong",
    (False, True): "wrong to right",
    (True, True): "stayed right",
    (False, False): "stayed wrong",
}
WITHOUT_SCRIPTS = 200  # rows of the table


def answer_rows(predictions: Predictions) -> list[dict[str, Any]]:
    """Returns every answer with both models' responses.

    Args:
        predictions: Predictions before and after unlearning.

    Returns:
        A dict a question. `id` is its split and the number of its line in `predictions/`, from 1.
        `before` and `after` have the `answer`, whether it is `right`, and `probabilities`: those of
        the options, which add up to 1, or None where no options were scored.
    """
    return [
        _row(f"{split}-{number}", case, predictions.names)
        for split, cases in predictions.cases.items()
        for number, case in enumerate(cases, 1)
    ]


def _row(name: str, case: Case, names: Mapping[str, str]) -> dict[str, Any]:
    line = case.before
    return {
        "id": name,
        "split": line["split"],
        "asked": line["modality"],
        "task": line["task"],
        "person": names.get(line["person"], line["person"]),
        "question": line["question"],
        "answer": line["answer"],
        "options": line["options"],
        "change": CHANGES[case.right],
        "before": _answer(case.before),
        "after": _answer(case.after),
    }


def _answer(line: Mapping[str, Any]) -> dict[str, Any]:
    chosen = line.get("choice") if line["task"] == "classification" else line["response"]
    return {
        "answer": line["response"] if chosen is None else chosen,
        "response": line["response"],
        "right": line["correct"],
        "probabilities": _probabilities(line.get("scores", ())),
    }


def _probabilities(scores: Sequence[float]) -> list[float] | None:
    """Returns the options' probabilities among themselves; their scores are in nats."""
    if not scores:
        return None
    weights = np.exp(np.subtract(scores, max(scores)))
    return [round(float(p), 4) for p in weights / weights.sum()]


def packed(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as JSON, compressed by gzip, in base64; equal rows give equal text."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def some_of_each(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Returns at most so many rows: in turn one of each split, way of asking, task and change."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[x] for x in ("split", "asked", "task", "change"))].append(row)
    turns = [
        (turn, number, row)
        for number, group in enumerate(groups.values())
        for turn, row in enumerate(group)
    ]
    taken = sorted(turns, key=lambda it: it[:2])[:most]
    return [row for _, _, row in sorted(taken, key=lambda it: (it[1], it[0]))]


def script() -> str:
    """Returns the browser's program, which the page holds as it is."""
    return (resources.files("mmunlearner_jax") / "reporting/browser.js").read_text()


def content_policy(program: str = "") -> str:
    """Returns a page's Content-Security-Policy: no request to any host, no script but this one.

    Args:
        program: Text of the only script that may run; "": none may.
    """
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    scripts = f" script-src 'sha256-{digest}';" if program else ""
    return (
        f"default-src 'none';{scripts} style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
