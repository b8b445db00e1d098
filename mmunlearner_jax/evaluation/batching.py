"""Batches of prompts, all of one shape, in which what several prompts begin with stands once.

A prompt is cut behind its last picture: all questions about a photograph share that beginning.
Axes: B prompts of a batch, P beginnings, T tokens (left padded).
"""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from mmunlearner_jax.data import pipeline

# Coarser than training's lengths, so that splits share compiled programs.
rounded = functools.partial(pipeline.rounded, multiple=8)


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
        beginnings: P numbers of prompts whose beginnings these are: B / P rows in turn have each.
    """

    rows: list[int]
    asked: list[int]
    beginnings: list[int]


def batches(prompts: Sequence[Prompt], size: int, parts: int, room: int) -> list[Batch]:
    """Puts the prompts that begin alike beside each other, as many of each beginning.

    Of how many that is, the number is taken for which the fewest tokens are computed: beginnings
    again where one has more prompts, or rows for nothing where it has fewer.

    Args:
        prompts: All with pictures or all without.
        size: B at most.
        parts: of the mesh, which divide `size`; they divide P.
        room: tokens that follow a prompt.

    Returns:
        Batches of the same B and P, every prompt in one of them.
    """
    groups: dict[tuple, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[prompt.beginning, prompt.images].append(number)
    beginning = max(len(prompt.beginning) for prompt in prompts)
    own = room + max(len(prompt.rest) for prompt in prompts)

    def tokens(each: int) -> int:
        places = sum(-(-len(group) // each) for group in groups.values())
        return places * (beginning + each * own)

    most = min(size // parts, max(map(len, groups.values())))
    each = min(range(1, most + 1), key=tokens)
    places = [group[n:][:each] for group in groups.values() for n in range(0, len(group), each)]
    # A power of two where there are few, so that splits share compiled programs.
    few = 1 << (-(-len(places) // parts) - 1).bit_length()
    width = min(size // each // parts, few) * parts
    found = []
    for start in range(0, len(places), width):
        here = places[start : start + width]
        asked = [n * each + m for n, place in enumerate(here) for m in range(len(place))]
        here += here[:1] * (width - len(here))
        rows = [number for place in here for number in place + place[:1] * (each - len(place))]
        found.append(Batch(rows, asked, [place[0] for place in here]))
    return found


def padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Left-padded int32 `input_ids` and `attention_mask` [B, T]."""
    ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        if tokens:
            ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def kinds(keys: Sequence[object]) -> Iterator[list[int]]:
    """Positions of equal keys, in the order in which the keys come."""
    for key in dict.fromkeys(keys):
        yield [n for n, other in enumerate(keys) if other == key]
