"""Assignment of samples to rows; those about one picture may share a row (`models.packing`)."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from mmunlearner_jax.data.samples import Sample


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """A row: the indices of its samples, and its length in tokens."""

    samples: tuple[int, ...]
    length: int


def share(
    samples: Sequence[Sample],
    lengths: np.ndarray,
    prefixes: np.ndarray,
    *,
    pack: int,
    seed: int,
) -> list[PackedRow]:
    """Distributes samples over rows of similar lengths.

    Samples share a row if they have the same picture, or if none has a picture.

    Args:
        samples: All of them have a picture, or none has one.
        lengths: Tokens of each sample in a row of its own, int [samples].
        prefixes: Tokens of each sample up to the end of its picture, int [samples]. A row holds
            them once.
        pack: Most samples of a row; 1: each sample has its own row, in order.
        seed: Seed of the order of samples with equal lengths.

    Returns:
        The rows; each sample is in exactly one.
    """
    if pack == 1:
        return [PackedRow((n,), int(length)) for n, length in enumerate(lengths)]
    groups: dict[bytes | None, list[int]] = defaultdict(list)
    for number in np.random.default_rng(seed).permutation(len(samples)).tolist():
        groups[samples[number].image].append(number)
    rows = []
    for group in groups.values():
        own = lengths[group] - prefixes[group]
        members: list[list[int]] = [[] for _ in range(-(-len(group) // pack))]
        filled = np.zeros(len(members))
        # Each sample, the longest first, goes to the row that is the shortest so far.
        for place in np.argsort(-own, kind="stable"):
            row = int(np.argmin(filled))
            members[row].append(group[place])
            filled[row] = np.inf if len(members[row]) == pack else filled[row] + own[place]
        prefix = prefixes[group[0]]
        rows += [
            PackedRow(tuple(row), int(prefix + np.sum(lengths[row] - prefixes[row])))
            for row in members
        ]
    return rows


def count_rows(samples: Sequence[Sample], pack: int) -> int:
    """Returns the number of rows that `share` makes, which does not depend on the lengths."""
    groups = Counter(sample.image for sample in samples)
    return sum(-(-count // pack) for count in groups.values())


def count_batches(samples: Sequence[Sample], batch_size: int, pack: int) -> int:
    """Returns the number of batches of one pass, each of `batch_size` questions."""
    return -(-count_rows(samples, pack) // (batch_size // pack))
