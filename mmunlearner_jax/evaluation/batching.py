"""Batches of prompts of one shape, in which prompts share their beginnings.

The beginning of a prompt ends with its last picture, so all questions about a photograph share it.
Axes: B prompts of a batch, P beginnings, T tokens (left padded).
"""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from mmunlearner_jax.data import pipeline

# A coarser multiple than in training, so that splits share compiled programs.
rounded = functools.partial(pipeline.rounded, multiple=8)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt: its tokens up to the last picture, the other tokens, and the encoded pictures."""

    beginning: tuple[int, ...]
    rest: tuple[int, ...]
    images: tuple[bytes, ...]


def cut(ids: Sequence[int], images: Sequence[bytes], picture_ids: Collection[int]) -> Prompt:
    """Splits a prompt's tokens after the last one that stands for a picture or clip."""
    place = max((n + 1 for n, token in enumerate(ids) if token in picture_ids), default=0)
    return Prompt(tuple(ids[:place]), tuple(ids[place:]), tuple(images))


@dataclasses.dataclass(frozen=True)
class Batch:
    """The prompts of a batch.

    Attributes:
        rows: B indices of prompts; repetitions fill the batch.
        distinct: Positions in `rows` that are no repetitions.
        beginnings: P indices of the prompts whose beginnings are used, each by B / P consecutive
            rows.
    """

    rows: list[int]
    distinct: list[int]
    beginnings: list[int]


def batches(prompts: Sequence[Prompt], size: int, parts: int, room: int) -> list[Batch]:
    """Groups prompts with the same beginning into batches of one shape.

    Each beginning of a batch has the same number of rows. That number is chosen so that the fewest
    tokens are computed: a beginning with more prompts is computed again, and one with fewer prompts
    gets rows that are repetitions.

    Args:
        prompts: All of them have pictures, or none has one.
        size: Largest B; a multiple of `parts`.
        parts: Number of parts into which the mesh splits a batch; it divides P.
        room: Most tokens that can follow a prompt.

    Returns:
        Batches of the same B and P; each prompt counts in exactly one.
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
    # If there are few groups, P / parts is a power of two, so that splits share programs.
    few = 1 << (-(-len(places) // parts) - 1).bit_length()
    width = min(size // each // parts, few) * parts
    full = []
    for start in range(0, len(places), width):
        here = places[start : start + width]
        distinct = [n * each + m for n, place in enumerate(here) for m in range(len(place))]
        here += here[:1] * (width - len(here))
        rows = [number for place in here for number in place + place[:1] * (each - len(place))]
        full.append(Batch(rows, distinct, [place[0] for place in here]))
    return full


def padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Returns left-padded `input_ids` and `attention_mask`, int32 [B, T]."""
    ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        if tokens:
            ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def kinds(keys: Sequence[object]) -> Iterator[list[int]]:
    """Yields the positions of each distinct key, in the order in which the keys first occur."""
    for key in dict.fromkeys(keys):
        yield [n for n, other in enumerate(keys) if other == key]
