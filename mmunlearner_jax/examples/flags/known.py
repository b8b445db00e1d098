"""The list of what a decoder knows by itself: only this is asked.

It is a JSON list of pairs: `["FR", "capital"]` with a key of `asking.KEYS`, or
`["general", "What is the plural of mouse?"]` with the wording of a general question. `measure.py`
writes one; `smollm2_known.json` is that of SmolLM2-135M-Instruct.
"""

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.examples.flags.asking import KEYS
from mmunlearner_jax.examples.flags.countries import CODES
from mmunlearner_jax.examples.flags.general import general_questions
from mmunlearner_jax.files import expanded, parse_json, read_bytes

GENERAL = "general"
SMOLLM2 = "smollm2"  # names the list in this folder


def known_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns a list as JSON, one line for each country.

    Args:
        pairs: The code of a country, or `GENERAL`, and what is known; grouped by the former.
    """
    lines = [
        ", ".join(json.dumps(pair, ensure_ascii=False) for pair in group)
        for _, group in groupby(pairs, key=lambda pair: pair[0])
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


class Known:
    """What may be asked; everything, if there is no list."""

    def __init__(self, file: str = ""):
        """Reads a list.

        Args:
            file: Path of the JSON file, or `SMOLLM2` for the list that SmolLM2-135M-Instruct was
                measured to know; "" allows everything.

        Raises:
            InputError: The file is missing or no list of pairs, or a pair names no country, fact or
                general question.
        """
        self._pairs: set[tuple[str, str]] | None = None
        if not file:
            return
        own = Path(__file__).with_name("smollm2_known.json")
        path = own if file == SMOLLM2 else expanded(file)
        mend = 'write a JSON list of pairs, [["FR", "capital"], ...]'
        with refusing(path, mend):
            pairs = parse_json(read_bytes(path, mend=mend))
        if not isinstance(pairs, list):
            raise InputError(f"{path}: holds {type(pairs).__name__}, not a list; {mend}")
        wordings = {asked.question for asked, _ in general_questions()}
        for pair in pairs:
            if not (isinstance(pair, list) and [type(x) for x in pair] == [str, str]):
                raise InputError(f"{path}: {pair!r} is no pair of texts; {mend}")
            who, what = pair
            if who == GENERAL and what not in wordings:
                raise InputError(f"{path}: {what!r} is no general question; remove the pair")
            if who != GENERAL and who not in CODES:
                raise InputError(f"{path}: {who!r} is no country's code; remove the pair")
            if who != GENERAL and what not in KEYS:
                raise InputError(f"{path}: {what!r} of {who} is no fact; give {', '.join(KEYS)}")
        self._pairs = {(who, what) for who, what in pairs}

    def has(self, who: str, what: str) -> bool:
        """Returns whether a fact of a country, or a general question, may be asked.

        Args:
            who: Code of the country, or `GENERAL`.
            what: Key of the fact, or the wording of the general question.
        """
        return self._pairs is None or (who, what) in self._pairs
