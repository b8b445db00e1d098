"""Values of a frozen model for samples: computed once for each sample, and stored.

Axes: B rows of a batch.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.data.store import IN_MEMORY, Records
from mmunlearner_jax.models.packing import IGNORE

FILE = 16  # batches of a file: at most this many are computed again after an interruption


class References:
    """Values of one model for samples, keyed by question, answer and picture.

    Args:
        folder: Folder of the stored values; it belongs to this model and this encoder alone.
        name: Key of the array in a batch.
        slots: "questions": a sample has one entry. "tokens": it has one for each supervised token.
        encoder: Counts the supervised tokens.
        in_memory: See `Records`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        slots: Literal["questions", "tokens"],
        encoder: Encoder,
        *,
        in_memory: int = IN_MEMORY,
    ):
        self._name, self._slots, self._encoder = name, slots, encoder
        self._records = Records(folder, in_memory=in_memory)

    def __contains__(self, sample: Sample) -> bool:
        return _key(sample) in self._records

    def add(self, batches: Iterable[tuple[Sequence[Sample], np.ndarray]]) -> None:
        """Stores values of samples. All processes must pass the same.

        Args:
            batches: Pairs of samples and an array [B, slots, ...]. Row i belongs to sample i;
                further rows, and slots beyond the sample's own, are ignored.
        """
        batches = iter(batches)
        for first in batches:
            self._records.write(self._named(chain([first], islice(batches, FILE - 1))))

    def _named(
        self, batches: Iterable[tuple[Sequence[Sample], np.ndarray]]
    ) -> Iterator[tuple[str, np.ndarray]]:
        for samples, array in batches:
            for sample, row in zip(samples, array, strict=False):
                yield _key(sample), row[: self._count(sample)]

    def pack(
        self, rows: Sequence[Sequence[Sample]], *, questions: int, tokens: int
    ) -> dict[str, np.ndarray]:
        """Returns the array of a batch, under its name.

        Args:
            rows: Samples of each of the B rows, in their order; all of them were added.
            questions: Most samples of a row.
            tokens: Most supervised tokens of a row.

        Returns:
            A dict with one array [B, questions or tokens, ...], padded with 0.
        """
        room = questions if self._slots == "questions" else tokens
        values = [[self._records[_key(sample)] for sample in row] for row in rows]
        kind = next(array for row in values for array in row)
        packed = np.zeros((len(rows), room, *kind.shape[1:]), kind.dtype)
        for place, arrays in enumerate(values):
            end = 0
            for array in arrays:
                packed[place, end : end + len(array)] = array
                end += len(array)
        return {self._name: packed}

    def _count(self, sample: Sample) -> int:
        if self._slots == "questions":
            return 1
        return int(np.sum(self._encoder.labelled(sample).labels[1:] != IGNORE))


@functools.cache  # every batch looks its samples up again
def _key(sample: Sample) -> str:
    parts = (sample.image or b"", sample.question.encode(), sample.answer.encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
