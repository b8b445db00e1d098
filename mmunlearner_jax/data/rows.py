"""Which questions stand in which row: those about one picture may share it (`models.packing`)."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from mmunlearner_jax.data.samples import Sample


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """Numbers of samples that share a row, and its length in tokens."""

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
    """Puts samples into rows, of about the same length each.

    Samples with one picture share rows, those without any are put together as their lengths fit.

    Args:
        samples: all with a picture or all without.
        lengths: int [samples], tokens of each, alone.
        prefixes: int [samples], how many of them a row holds once: those up to the picture.
        pack: samples of a row, at most; 1: every sample has its own, in order.
        seed: of the order in which equals are taken.

    Returns:
        Rows with every sample in one of them.
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
        # The longest first, each to the row that is the shortest so far.
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
    """How many rows `share` makes, without knowing lengths."""
    groups = Counter(sample.image for sample in samples)
    return sum(-(-count // pack) for count in groups.values())
