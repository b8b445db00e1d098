"""Batches of prompts, all of one shape, in which what several prompts begin with stands once.

A prompt is cut behind its last picture: all questions about a photograph share that beginning.
Axes: B prompts of a batch, P beginnings, I pictures of a beginning, T tokens (left padded).
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

# Lengths are rounded up to a multiple of this, so that splits share compiled programs.
LENGTH_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt up to its last picture, those behind it, and the encoded pictures."""

    beginning: tuple[int, ...]
    rest: tuple[int, ...]
    images: tuple[bytes, ...]


def cut(ids: Sequence[int], images: Sequence[bytes], image_token_id: int) -> Prompt:
    """Cuts a prompt's tokens behind the last one that stands for a picture."""
    place = max((n + 1 for n, token in enumerate(ids) if token == image_token_id), default=0)
    return Prompt(tuple(ids[:place]), tuple(ids[place:]), tuple(images))


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which prompts are asked at once.

    Attributes:
        rows: B numbers of prompts; where there are too few, some come again.
        asked: positions of `rows` that count.
        beginnings: P numbers of prompts whose beginnings these are.
        of: int32 [B], which beginning a row has, counted within its part of the mesh.
    """

    rows: list[int]
    asked: list[int]
    beginnings: list[int]
    of: np.ndarray


def batches(prompts: Sequence[Prompt], size: int, parts: int) -> list[Batch]:
    """Orders prompts so that those with one beginning lie on one part of the mesh.

    Args:
        prompts: All with pictures or all without.
        size: B.
        parts: of the mesh, which divide B.

    Returns:
        Batches of the same B and P, every prompt in one of them.
    """
    groups: dict[tuple, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[prompt.beginning, prompt.images].append(number)
    first = {number: group[0] for group in groups.values() for number in group}
    order = list(first)
    here = size // parts
    shares = [order[start : start + here] for start in range(0, len(order), here)]
    shares += [[]] * (-len(shares) % parts)
    distinct = [list(dict.fromkeys(first[n] for n in share)) for share in shares]
    # One of at most 16 widths, so that few are compiled.
    step = -(-here // 16)
    width = -(-max(map(len, distinct)) // step) * step
    found = []
    for start in range(0, len(shares), parts):
        rows, asked, beginnings, of = [], [], [], []
        for share, own in zip(shares[start:][:parts], distinct[start:][:parts], strict=True):
            asked += range(len(rows), len(rows) + len(share))
            filled = share + (share or order)[:1] * (here - len(share))
            own = own or [first[filled[0]]]
            rows += filled
            of += [own.index(first[number]) for number in filled]
            beginnings += own + own[:1] * (width - len(own))
        found.append(Batch(rows, asked, beginnings, np.array(of, np.int32)))
    return found


def padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Left-padded int32 `input_ids` and `attention_mask` [B, T]."""
    ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        if tokens:
            ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def rounded(length: int) -> int:
    """A length, rounded up."""
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def kinds(keys: Sequence[object]) -> Iterator[list[int]]:
    """Positions of equal keys, in the order in which the keys come."""
    for key in dict.fromkeys(keys):
        yield [n for n, other in enumerate(keys) if other == key]
