"""Collapse: answers that are empty or repeat themselves are damage, not forgetting."""

from collections.abc import Mapping

from mmunlearner_jax.audit.attack import AFTER, BEFORE

_LONG = 6  # words from which on repetition counts
_DISTINCT = 0.5  # least fraction of them that differ
_MOST = 0.5  # part of the answers that may break in unlearning


def is_broken(response: str) -> bool:
    """Returns whether an answer is empty, or long and mostly repetition.

    Args:
        response: What a model answered.
    """
    words = response.lower().split()
    if not any(character.isalnum() for character in response):
        return True
    return len(words) >= _LONG and len({*words}) < _DISTINCT * len(words)


def collapsed(broken: Mapping[str, float]) -> bool:
    """Returns whether unlearning broke most answers.

    Args:
        broken: Fraction of broken answers by model.
    """
    return broken[AFTER] - broken[BEFORE] > _MOST
