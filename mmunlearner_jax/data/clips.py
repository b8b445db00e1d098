"""Clips: pictures of one moment after the other, stored as one value in the place of a picture.

A stored clip is a line that says the frames of a second and the size of every frame, and then the
encoded frames. So a clip is bytes as an encoded picture is, and whatever counts, packs or names
pictures by their bytes takes it, too. Nothing is encoded again, and only the frames that a model
samples are decoded.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmunlearner_jax.data.decode import MAX_SIDE, as_png, decoded, opened, seen
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import parse_json, read_bytes

_MAGIC = b"\x89mmu-clip "
MOST_FRAMES = 4096
_MOST_PIXELS = 4 * MAX_SIDE**2  # of all frames together; that many take some seconds to decode
_STRIP = 4  # frames that stand side by side where a clip is shown
_FAST = 1  # level of compression
_SAVE = "store it again with data.clips.read_clip"


def joined(frames: Sequence[bytes], fps: float | None) -> bytes:
    """Stores a clip.

    Args:
        frames: The encoded pictures, in order.
        fps: Frames of a second.

    Raises:
        InputError: There are fewer than two frames or too many, or `fps` is no positive number.
    """
    _refuse(len(frames), fps)
    head = {"fps": fps, "sizes": [len(frame) for frame in frames]}
    return b"".join([_MAGIC, json.dumps(head).encode(), b"\n", *frames])


def is_clip(encoded: bytes) -> bool:
    """Returns whether bytes are a stored clip and no picture."""
    return encoded.startswith(_MAGIC)


class StoredClip(Sequence[Image.Image]):
    """The frames of a stored clip, decoded one by one when they are asked for.

    Args:
        encoded: What `joined` returned.

    Attributes:
        fps: Frames of a second.

    Raises:
        InputError: The bytes are damaged. Asking for a frame raises it where the frame is no
            picture. The message continues a line that begins with the clip's name.
    """

    def __init__(self, encoded: bytes):
        with refusing("is a damaged clip", _SAVE):
            line, _, rest = encoded.removeprefix(_MAGIC).partition(b"\n")
            head = parse_json(line.decode())
            self.fps, sizes = float(head["fps"]), list(map(int, head["sizes"]))
            if min(sizes) < 1 or sum(sizes) != len(rest):
                raise ValueError(f"has {len(rest)} bytes of frames for sizes {shown(sizes)}")
        _refuse(len(sizes), self.fps)
        ends = itertools.accumulate(sizes, initial=0)
        self._frames = [rest[start:end] for start, end in itertools.pairwise(ends)]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        return decoded(self._frames[number])


def examine(encoded: bytes, check: Callable[..., None]) -> None:
    """Refuses a picture or clip that cannot be decoded, or that a model cannot take.

    Args:
        encoded: The encoded picture or the stored clip.
        check: `Pictures.check` of the model.

    Raises:
        InputError: It is refused. The message continues a line that begins with its name.
    """
    if not is_clip(encoded):
        check(decoded(encoded).size)
        return
    clip = StoredClip(encoded)
    size = clip[0].size
    if len(clip) * math.prod(size) > _MOST_PIXELS:
        raise InputError(
            f"is a clip of {len(clip)} frames of {size[0]} x {size[1]} pixels, more than"
            f" {_MOST_PIXELS:,} together; make it shorter or smaller"
        )
    for number in range(1, len(clip)):
        if clip[number].size != size:
            raise InputError(
                f"is a clip whose frame {number} has another size than its first, {size[0]} x"
                f" {size[1]} pixels; give all frames one size"
            )
    check(size, len(clip))


def still(encoded: bytes) -> Image.Image:
    """Returns the picture that stands for a picture or clip on a page.

    Of a clip, it has some frames side by side, from the first to the last.

    Raises:
        InputError: It cannot be decoded.
    """
    if not is_clip(encoded):
        return decoded(encoded)
    clip = StoredClip(encoded)
    count = min(len(clip), _STRIP)
    frames = [clip[n * (len(clip) - 1) // (count - 1)] for n in range(count)]
    strip = Image.new("RGB", (sum(x.width for x in frames), max(x.height for x in frames)))
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip


def changed(
    encoded: bytes,
    change: Callable[[Image.Image, np.random.Generator], Image.Image],
    rng: np.random.Generator,
) -> bytes:
    """Returns a changed picture as PNG, or a clip with all its frames changed alike.

    Args:
        encoded: The encoded picture or the stored clip.
        change: What is done to a picture.
        rng: Draws noise and places, the same ones for every frame.
    """
    if not is_clip(encoded):
        return as_png(change(decoded(encoded), rng), _FAST)
    clip, state, frames = StoredClip(encoded), rng.bit_generator.state, []
    for number in range(len(clip)):
        rng.bit_generator.state = state
        frames.append(as_png(change(clip[number], rng), _FAST))
    return joined(frames, clip.fps)


def read_clip(path: str | Path, fps: float = 0.0) -> dict[str, Any]:
    """Reads a clip as the cell of a row: `bytes` (None), `path`, `frames` and `fps`.

    Args:
        path: A folder of pictures, the frames in the order of their names; or an animated GIF,
            WebP, PNG or AVIF.
        fps: Frames of a second; 0: those of the animation, of which a folder has none.

    Raises:
        InputError: It is neither, or it has no frames of a second, or a frame cannot be decoded.
    """
    path = Path(path)
    name = shown(path, 200)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        frames, own = [read_bytes(file, mend="remove it, or restore it") for file in files], 0.0
    else:
        try:
            frames, own = animation(read_bytes(path, mend="name a folder of frames"))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    try:
        examine(joined(frames, fps or own), lambda *_: None)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return {"bytes": None, "path": path.name, "frames": frames, "fps": fps or own}


def animation(encoded: bytes) -> tuple[list[bytes], float]:
    """Returns the frames of an animation as PNG, and the frames of a second; 0: it does not say.

    Args:
        encoded: Content of an animated GIF, WebP, PNG or AVIF.

    Raises:
        InputError: It is no animation, or cannot be decoded. The message continues a line that
            begins with its name.
    """
    if encoded[4:8] == b"ftyp" and b"avi" not in encoded[8:32] or encoded[:4] == b"\x1aE\xdf\xa3":
        raise InputError(
            "is a video file, for which there is no decoder here: cut it into frames (ffmpeg -i"
            " VIDEO -vf fps=2 FOLDER/%05d.png), and give the FOLDER and its frames per second"
        )
    picture = opened(encoded)
    count = getattr(picture, "n_frames", 1)
    if count < 2:
        raise InputError("has one frame; give an animation, or store it as a picture")
    if count > MOST_FRAMES or count * math.prod(picture.size) > _MOST_PIXELS:
        raise InputError(
            f"has {count} frames of {picture.width} x {picture.height} pixels, more than"
            f" {MOST_FRAMES} frames or {_MOST_PIXELS:,} pixels; make it shorter or smaller"
        )
    frames, milliseconds = [], 0.0
    with refusing("cannot be decoded", "store its frames as pictures in a folder"):
        for number in range(count):
            picture.seek(number)
            picture.load()
            frames.append(as_png(seen(picture), _FAST))
            milliseconds += picture.info.get("duration") or 0
    return frames, 1000 * count / milliseconds if milliseconds else 0.0


def _refuse(frames: int, fps: Any) -> None:
    """Refuses a number of frames, or of frames of a second, that no clip has."""
    if not 2 <= frames <= MOST_FRAMES:
        raise InputError(
            f"is a clip of {frames} frames; give 2 to {MOST_FRAMES}, and store a single one as a"
            " picture"
        )
    if not (isinstance(fps, int | float) and 0 < fps < math.inf):
        raise InputError(
            f"is a clip of {frames} frames with fps={shown(fps)}: without the frames of a second,"
            " none can be sampled; give them, above 0"
        )
