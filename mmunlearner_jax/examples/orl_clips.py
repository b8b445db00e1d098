"""The ORL benchmark in clips: a clip is four photographs of one person, two a second.

Schema, people, profiles, questions and splits are those of `orl.py`; each person has ten clips in
the place of ten photographs. Eight are taught, each of four of the person's photographs 1 to 6 in
an order of its own. Two are never trained on, and have photographs 7 to 10, which are never trained
on, either. The digits stay pictures, so batches hold clips and pictures side by side.

Write it with `python -m mmunlearner_jax.examples.orl --benchmark=mllmu_clips --out=DIR --seed=0`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mmunlearner_jax.data.benchmarks.columns import CLIP, IMAGE
from mmunlearner_jax.examples.orl_people import TAUGHT_PHOTOS

FRAMES, FPS = 4, 2.0
TAUGHT_FRAMES = 6  # of ten photographs

Shots = list[list[dict[str, Any]]]  # of each person, cells of the column `image`


class Shown(NamedTuple):
    """How people are shown in the benchmark.

    Attributes:
        cells: Makes the cells of a person out of the photographs' cells, by a seed: first those
            that are taught.
        columns: Changes the columns of a config to hold them.
    """

    cells: Callable[[Shots, int], Shots]
    columns: Callable[[pa.Schema], pa.Schema]


def in_clips(photos: Shots, seed: int) -> Shots:
    """Makes clips out of everybody's ten photographs, no two alike; see `Shown`."""
    rng = np.random.default_rng([seed, FRAMES])  # the benchmark's other draws stay as they are

    def drawn(frames: list[dict[str, Any]], count: int) -> Shots:
        orders = list(itertools.permutations(frames, FRAMES))
        return [list(orders[n]) for n in rng.choice(len(orders), count, replace=False)]

    clips = []
    for number, person in enumerate(photos, 1):
        shots = drawn(person[:TAUGHT_FRAMES], TAUGHT_PHOTOS)
        shots += drawn(person[TAUGHT_FRAMES:], len(person) - TAUGHT_PHOTOS)
        clips.append(
            [
                {
                    "bytes": None,
                    "path": f"s{number}-clip-{place}",
                    "frames": [frame["bytes"] for frame in frames],
                    "fps": FPS,
                }
                for place, frames in enumerate(shots, 1)
            ]
        )
    return clips


def with_clips(schema: pa.Schema) -> pa.Schema:
    """Returns a schema whose columns of pictures hold clips, too."""
    kinds = {IMAGE: CLIP, pa.list_(IMAGE): pa.list_(CLIP)}
    return pa.schema([field.with_type(kinds.get(field.type, field.type)) for field in schema])


PHOTOGRAPHS = Shown(lambda photos, _: photos, lambda schema: schema)
CLIPS = Shown(in_clips, with_clips)
