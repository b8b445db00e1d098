"""The lines of `predictions/`: one question each, with what a model said."""

from pathlib import Path
from typing import Any

from mmunlearner_jax.files import parse_json, read_lines

MEND = "restore it, or run everything in a new workdir"

_KINDS: dict[str, type] = {
    **dict.fromkeys(("split", "modality", "task", "person"), str),
    **dict.fromkeys(("question", "answer", "response"), str),
    **{"options": list, "scores": list, "correct": bool, "likelihoods": dict},
}
_MEMBERS = {"options": str, "scores": int | float}


def prediction(text: str) -> dict[str, Any]:
    """A line, from its text.

    Raises:
        ValueError: it is no JSON.
        TypeError: it is no object, or a field is of another type than stages write.
    """
    line = parse_json(text)
    if not isinstance(line, dict):
        raise TypeError(f"{type(line).__name__}, no JSON object")
    for field, kind in _KINDS.items():
        if field in line and not isinstance(line[field], kind):
            raise TypeError(f"{field} is {type(line[field]).__name__}, not {kind.__name__}")
    for field, kind in _MEMBERS.items():
        if not all(isinstance(member, kind) for member in line.get(field, ())):
            raise TypeError(f"{field} holds something else than {kind}")
    return line


def read_predictions(path: Path, *, mend: str = MEND) -> list[dict[str, Any]]:
    """The lines of one split.

    Args:
        path: of the file.
        mend: what to do where one cannot be read, for the error.

    Raises:
        InputError: the file is missing, or names the first line that cannot be read.
    """
    return read_lines(path, prediction, mend=mend)
