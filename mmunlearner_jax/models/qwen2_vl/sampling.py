"""Which frames of a clip Qwen2-VL's processor takes, and how large they become."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import read_json
from mmunlearner_jax.processing.companions import LARGEST_EDGE, MEND, Companions
from mmunlearner_jax.processing.pictures import Sizes

FILE = "video_preprocessor_config.json"
# What the checkpoints' files leave open: 2 frames of a second are those of the published code, the
# others are defaults of `Qwen2VLVideoProcessor`.
_DEFAULTS = {"fps": 2.0, "min_frames": 4, "max_frames": 768}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws frames evenly over a clip, as many as a rate asks for within limits.

    Attributes:
        fps: Frames of a second that are sampled.
        min_frames: Fewest frames, if the clip has as many.
        max_frames: Most frames.
        together: Number of frames that one patch spans; the number of frames is a multiple.
        size: The fields `shortest_edge` and `longest_edge` of the image processor for frames: the
            fewest and the most pixels.
    """

    fps: float
    min_frames: int
    max_frames: int
    together: int
    size: Mapping[str, int]

    def places(self, count: int, fps: float) -> list[int]:
        """Returns the numbers of the sampled frames.

        It is `sample_frames` of `Qwen2VLVideoProcessor` in transformers.

        Args:
            count: Number of frames of the clip.
            fps: Frames of a second of the clip.

        Raises:
            InputError: The clip has fewer frames than a patch spans.
        """
        if count < self.together:
            raise InputError(
                f"is a clip of {count} frames, fewer than the {self.together} that a patch spans;"
                " give more frames, or store one as a picture"
            )
        most = min(self.max_frames, count) // self.together * self.together
        wanted = min(max(count / fps * self.fps, self.min_frames), most)
        number = math.floor(wanted / self.together) * self.together
        step = count / number
        # transformers rounds to float32 before it rounds down.
        return [int(np.float32(n * step)) for n in range(math.ceil(count / step))]

    def seconds(self, count: int, fps: float) -> float:
        """Returns the seconds that a patch spans, of a clip as in `places`."""
        return self.together / (len(self.places(count, fps)) / count * fps)


def stored(files: Companions) -> Mapping[str, Any]:
    """Returns the options of the checkpoint's video processor; {} where it has none.

    Raises:
        InputError: The file is broken.
    """
    own = files.processor.get("video_processor")  # written by transformers 5
    path = files.folder / FILE
    if own is None and os.path.lexists(path):
        own = read_json(path, mend=MEND)
    if not isinstance(own or {}, dict):
        raise InputError(f"{files.folder}: video_processor={shown(own)} is no object; {MEND}")
    return own or {}


def sampler(files: Companions, sizes: Sizes, together: int, size: Mapping[str, int]) -> Sampler:
    """Makes the sampler of a checkpoint.

    Args:
        files: The small files of the checkpoint.
        sizes: Options that replace those in the files, unless they are 0.
        together: Number of frames that one patch spans.
        size: Fewest and most pixels of a picture, for checkpoints whose files say none of frames,
            as transformers does.

    Raises:
        InputError: An option is no number in its range.
    """
    options = stored(files)
    given = {"fps": sizes.clip_fps, "max_frames": sizes.clip_frames}
    values = {
        name: given.get(name) or options.get(name) or default for name, default in _DEFAULTS.items()
    }
    own = options.get("size")
    own = own if isinstance(own, dict) else {}
    limits = {
        "shortest_edge": sizes.min_pixels or own.get("shortest_edge") or size["shortest_edge"],
        "longest_edge": sizes.max_pixels or own.get("longest_edge") or size["longest_edge"],
    }
    for name, value in (values | limits).items():
        least = 0 if name == "fps" else together if name.endswith("frames") else 1
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value < math.inf
        ):
            raise InputError(
                f"{files.folder / FILE}, or config.model.clip_fps, clip_frames: {name}="
                f"{shown(value)} is no number from {least}; give another"
            )
    if (least := limits["shortest_edge"]) > (most := min(limits["longest_edge"], LARGEST_EDGE**2)):
        raise InputError(
            f"{files.folder / FILE}: frames of at least {least} pixels (from the config or the"
            f" file) are above {most}, the most that they may have; give less"
        )
    return Sampler(**values, together=together, size=limits)
