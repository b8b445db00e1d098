"""Leaves names, facts and faces out of what is meant to be passed on."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmunlearner_jax.reporting.cases import Case, Predictions
from mmunlearner_jax.request import PERSON

_SHORTEST = 3  # letters of a part of a name that is redacted by itself
_FIELDS = ("question", "answer", "options", "response", "choice", "slot", "accepted")


class Redaction:
    """Replaces names and facts in texts.

    Args:
        names: Names of people; each is replaced as a whole, and so is each part of it that has
            three letters or more. Blanks, "_" and "-" between the parts are equal.
        facts: What is told about the person ("baker").
    """

    def __init__(self, names: Iterable[str], facts: Iterable[str] = ()):
        names = [name for name in names if name]
        parts = {part for name in names for part in re.split(r"\W+", name)}
        wholes = sorted({*names, *(p for p in parts if len(p) >= _SHORTEST)}, key=len, reverse=True)
        self._patterns = [
            (_pattern(texts), word)
            for texts, word in ((wholes, "[name]"), (sorted({*facts}, key=len), "[fact]"))
            if texts
        ]

    def text(self, text: str) -> str:
        """Returns a text with every name as "[name]" and every fact as "[fact]"."""
        for pattern, word in self._patterns:
            text = pattern.sub(word, text)
        return text

    def all_texts(self, value: Any) -> Any:
        """Returns a JSON value whose texts are redacted; keys stay as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.all_texts(x) for key, x in value.items()}
        return [self.all_texts(x) for x in value] if isinstance(value, list | tuple) else value

    def predictions(self, predictions: Predictions) -> Predictions:
        """Returns predictions without photographs, names and facts."""
        redacted = copy.copy(predictions)
        redacted.names = {
            key: "the person" if key == PERSON else f"somebody else ({key})"
            for key in predictions.names
        }
        redacted.cases = {
            split: [Case(self._line(case.before), self._line(case.after), None) for case in cases]
            for split, cases in predictions.cases.items()
        }
        return redacted

    def _line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: self.all_texts(line[name]) for name in _FIELDS if name in line}
        return {**line, **told}


def _pattern(texts: Sequence[str]) -> re.Pattern[str]:
    """Returns a pattern of whole words, whatever stands between them; case does not count."""
    alternatives = "|".join(
        r"[\W_]*".join(map(re.escape, re.findall(r"\w+", text))) or re.escape(text)
        for text in texts
    )
    return re.compile(rf"(?<![^\W_])(?:{alternatives})(?![^\W_])", re.IGNORECASE)
