"""The lines of `predictions/`: each holds a question and a model's answer."""

from pathlib import Path
from typing import Any

from mmunlearner_jax.files import parse_json, read_lines

MEND = "restore it, or run everything in a new workdir"

_KINDS: dict[str, type] = {
    **dict.fromkeys(("split", "modality", "task", "person"), str),
    **dict.fromkeys(("question", "answer", "response"), str),
    **{"options": list, "accepted": list, "scores": list, "correct": bool, "likelihoods": dict},
    **{"rule": str, "letters": str, "group": str, "categories": list, "keywords": list},
}
_MEMBERS = {
    "options": str,
    "accepted": str,
    "categories": str,
    "keywords": str,
    "scores": int | float,
}


def prediction(text: str) -> dict[str, Any]:
    """Parses a line of predictions.

    Raises:
        ValueError: The line is not JSON.
        TypeError: The line is no object, or a field has another type than stages write.
    """
    line = parse_json(text)
    if not isinstance(line, dict):
        raise TypeError(f"the line is {type(line).__name__}, not a JSON object")
    for field, kind in _KINDS.items():
        if field in line and not isinstance(line[field], kind):
            raise TypeError(f"{field} is {type(line[field]).__name__}, not {kind.__name__}")
    for field, kind in _MEMBERS.items():
        if not all(isinstance(member, kind) for member in line.get(field, ())):
            raise TypeError(f"{field} has a member that is not {kind}")
    return line


def read_predictions(path: Path, *, mend: str = MEND) -> list[dict[str, Any]]:
    """Returns the predictions of one split.

    Args:
        path: The file.
        mend: Remedy for a missing or damaged file, for the error.

    Raises:
        InputError: The file is missing, or a line is damaged; the first such line is named.
    """
    return read_lines(path, prediction, mend=mend)
