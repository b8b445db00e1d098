"""Collapse: answers that are empty, repetitive or in another script are damage, not forgetting."""

import unicodedata
from collections.abc import Mapping

from mmunlearner_jax.audit.attack import AFTER, BEFORE

_LONG = 6  # words from which on repetition counts
_DISTINCT = 0.5  # least fraction of them that differ
_MOST = 0.5  # part of the answers that may break in unlearning
_TIMES = 10.0  # factor by which the perplexity of kept text may grow


def is_broken(response: str, expected: str = "") -> bool:
    """Returns whether an answer is empty, long and mostly repetition, or mostly in another script.

    Args:
        response: What a model answered.
        expected: Text in the scripts in which it should answer, e.g. question and right answer; "":
            any script will do.
    """
    words = response.lower().split()
    if not any(character.isalnum() for character in response):
        return True
    if len(words) >= _LONG and len({*words}) < _DISTINCT * len(words):
        return True
    scripts, known = _scripts(response), {*_scripts(expected)}
    return bool(known and scripts) and sum(s not in known for s in scripts) > len(scripts) / 2


def _scripts(text: str) -> list[str]:
    """Returns the script of each letter, e.g. "LATIN", "CYRILLIC", "CJK"."""
    return [unicodedata.name(x, "?").split()[0] for x in text if x.isalpha()]


def collapsed(broken: Mapping[str, float], perplexity: Mapping[str, float]) -> bool:
    """Returns whether unlearning broke most answers, or language as such.

    Args:
        broken: Fraction of broken answers by model.
        perplexity: Perplexity of kept text by model; {}: there is no such text.
    """
    worse = bool(perplexity) and perplexity[AFTER] > _TIMES * perplexity[BEFORE]
    return worse or broken[AFTER] - broken[BEFORE] > _MOST
