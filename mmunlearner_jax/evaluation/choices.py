"""Multiple choice without letters: likelihoods of the options within the model's own answer.

Teacher forcing of the true sentence would reveal the person's name to the model. So the model
answers first. The *slot* is the word boundary of its own answer at which the options together are
most probable. Every option is scored there by its whole log-likelihood.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np


class Continuations:
    """Token ids of words that continue a text, and word boundaries of decoded answers."""

    def __init__(self, tokenizer: Any, prompt_end: str):
        """Reads the tokenizer.

        Args:
            tokenizer: A tokenizer of transformers.
            prompt_end: Text at the end of every prompt. An answer follows it after a blank, e.g.
                after "ASSISTANT:", or directly if it ends a line.
        """
        self._tokenizer = tokenizer
        self._prompt_end = prompt_end
        self._prefix = self._ids(prompt_end)
        self._continued = functools.lru_cache(None)(self._joined)  # few options, often repeated
        self._opening = "" if prompt_end.endswith("\n") else " "
        # A blank directly after a line break would merge with it, where digits are split off.
        self._word = f"{self._opening}a"

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _joined(self, before: str, text: str) -> list[int]:
        before = self._prompt_end + before
        prefix, ids = self._ids(before), self._ids(before + text)
        assert ids[: len(prefix)] == prefix, "the tokenizer merges across blanks"
        return ids[len(prefix) :]

    def ids(self, text: str) -> list[int]:
        """Returns the ids of `text` at the beginning of an answer; do not change the list."""
        return self._continued("", self._opening + text)

    def behind(self, text: str) -> list[int]:
        """Returns the ids of `text` after other words of an answer; do not change the list."""
        return self._continued(self._word, " " + text)

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of an answer's ids, without special tokens."""
        before, whole = (
            self._tokenizer.decode(self._prefix + list(more), skip_special_tokens=True)
            for more in ((), ids)
        )
        return whole[len(before) :].strip()

    def boundaries(self, ids: Sequence[int]) -> list[int]:
        """Returns the positions n such that a word starts after `ids[:n]`, and the end."""
        pieces = self._tokenizer.convert_ids_to_tokens(list(ids))
        starts = [n for n, piece in enumerate(pieces) if piece[:1] in ("\u0120", "\u2581")]
        return sorted({0, *starts, len(ids)})


def find_slot(
    log_probs: np.ndarray,
    first_ids: Sequence[int] | np.ndarray,
    boundaries: Sequence[int],
    opening_ids: Sequence[int] | np.ndarray | None = None,
) -> int:
    """Returns the slot: a position of the answer, chosen without knowledge of the true option.

    It is the last boundary at which the options hold most of the probability, or if there is none,
    the boundary at which they hold the most. The last one is taken because an option may also
    occur in words that repeat the question.

    Args:
        log_probs: Log-probability of each option's first token at each position, float [N, K].
        first_ids: The K first tokens; options with the same first token count once.
        boundaries: Positions that may be the slot.
        opening_ids: The first tokens at position 0, if they differ there.
    """
    usable = [n for n in boundaries if n < len(log_probs)]
    opening_ids = first_ids if opening_ids is None else opening_ids
    distinct = [np.unique(first_ids if n else opening_ids, return_index=True)[1] for n in usable]
    mass = np.array(
        [np.logaddexp.reduce(log_probs[n][ids]) for n, ids in zip(usable, distinct, strict=True)]
    )
    likely = np.flatnonzero(mass > np.log(0.5))
    return usable[likely[-1] if likely.size else int(np.argmax(mass))]
