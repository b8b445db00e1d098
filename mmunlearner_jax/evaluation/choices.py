"""Multiple choice without letters: which option would the model put where its own words want one?

Teacher-forcing the true sentence up to the fact would hand the model the person's name. So the
model answers first; the *slot* is the word boundary of its own answer at which the options
together are most probable; there every option is scored by its whole log-likelihood.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np


class Continuations:
    """Token ids of words as they continue a text, and word boundaries of decoded answers."""

    def __init__(self, tokenizer: Any, prompt_end: str):
        """Reads the tokenizer.

        Args:
            tokenizer: of transformers.
            prompt_end: the text that ends every prompt: an answer follows "ASSISTANT:" after a
                blank, the end of a line at once.
        """
        self._tokenizer = tokenizer
        self._prompt_end = prompt_end
        self._prefix = self._ids(prompt_end)
        self._continued = functools.lru_cache(None)(self._joined)  # options are few, and come again
        self._opening = "" if prompt_end.endswith("\n") else " "

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _joined(self, text: str) -> list[int]:
        ids = self._ids(self._prompt_end + text)
        assert ids[: len(self._prefix)] == self._prefix, "a tokenizer that merges over blanks"
        return ids[len(self._prefix) :]

    def ids(self, text: str) -> list[int]:
        """Ids of `text` as an answer begins with it; not to be changed."""
        return self._continued(self._opening + text)

    def behind(self, text: str) -> list[int]:
        """Ids of `text` behind words of an answer, after a blank; not to be changed."""
        return self._continued(" " + text)

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without special tokens."""
        before, whole = (
            self._tokenizer.decode(self._prefix + list(more), skip_special_tokens=True)
            for more in ((), ids)
        )
        return whole[len(before) :].strip()

    def boundaries(self, ids: Sequence[int]) -> list[int]:
        """Positions n at which a new word starts after `ids[:n]`, the end included."""
        pieces = self._tokenizer.convert_ids_to_tokens(list(ids))
        starts = [n for n, piece in enumerate(pieces) if piece[:1] in ("\u0120", "\u2581")]
        return sorted({0, *starts, len(ids)})


def find_slot(
    log_probs: np.ndarray,
    first_ids: Sequence[int] | np.ndarray,
    boundaries: Sequence[int],
    opening_ids: Sequence[int] | np.ndarray | None = None,
) -> int:
    """The last boundary at which the options hold most of the probability, or the best there is.

    The last, because an option may also occur in words that only repeat the question.

    Args:
        log_probs: float [N, K], of every option's first token at every position.
        first_ids: those K tokens; options that share one count once.
        boundaries: positions that may be the slot.
        opening_ids: the tokens at position 0, where they are others.

    Returns:
        The slot; the true option is not known to this function.
    """
    usable = [n for n in boundaries if n < len(log_probs)]
    opening_ids = first_ids if opening_ids is None else opening_ids
    distinct = [np.unique(first_ids if n else opening_ids, return_index=True)[1] for n in usable]
    mass = np.array(
        [np.logaddexp.reduce(log_probs[n][ids]) for n, ids in zip(usable, distinct, strict=True)]
    )
    likely = np.flatnonzero(mass > np.log(0.5))
    return usable[likely[-1] if likely.size else int(np.argmax(mass))]
