"""What a frozen model said of samples: asked once for each, kept, and put beside the batches' rows.

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

FILE = 16  # batches of a file: so many are asked again after an interruption, at most


class References:
    """Answers of one model about samples, by question, answer and picture.

    Args:
        folder: where they are kept, of this model and this encoder alone.
        name: of the arrays in a batch.
        slots: what a sample has entries for: one for itself, or one for each supervised token.
        encoder: tells the tokens.
        in_memory: see `Records`.
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
        """Keeps what was said. All processes must give the same.

        Args:
            batches: samples, and of each, in order, a row of an array [B, slots, ...]; rows and
                slots may be left over.
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
        """The array of a batch, under its name.

        Args:
            rows: samples that were added, of every row one behind the other.
            questions: room of a row.
            tokens: supervised ones, room of a row.

        Returns:
            [B, questions or tokens, ...]; 0 where a row has no more.
        """
        room = questions if self._slots == "questions" else tokens
        found = [[self._records[_key(sample)] for sample in row] for row in rows]
        kind = next(array for row in found for array in row)
        packed = np.zeros((len(rows), room, *kind.shape[1:]), kind.dtype)
        for place, arrays in enumerate(found):
            end = 0
            for array in arrays:
                packed[place, end : end + len(array)] = array
                end += len(array)
        return {self._name: packed}

    def _count(self, sample: Sample) -> int:
        if self._slots == "questions":
            return 1
        return int(np.sum(self._encoder.labelled(sample).labels[1:] != IGNORE))


@functools.cache  # a sample is looked up in every batch that holds it
def _key(sample: Sample) -> str:
    parts = (sample.image or b"", sample.question.encode(), sample.answer.encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
