"""Pictures and clips between a processor and a model.

They are read, kept and augmented one by one, and then packed into the model's arrays.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, F patches of a
picture, D vision features.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
from PIL import Image

from mmunlearner_jax.errors import InputError

# A picture as `Pictures.read` returns it: an array float32 [C, H, W]; or a tree of such arrays,
# where the model sees a picture in several sizes, or a clip.
Picture = Any

_MOST_RESIZED = 2**28  # pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Options of models that take pictures of any size, or clips; see `config.model`.

    Attributes:
        min_pixels: Smaller pictures and frames are enlarged to this number of pixels; 0: the number
            in the checkpoint's files.
        max_pixels: Larger ones are shrunk to this number of pixels; 0: the number in the files.
        patch_budgets: The numbers of patches that a row may have; (): those that make a power of
            two of tokens.
        clip_fps: Frames that are sampled of a second of a clip; 0: the number in the files.
        clip_frames: Most frames that are sampled of a clip; 0: the number in the files.
    """

    min_pixels: int = 0
    max_pixels: int = 0
    patch_budgets: tuple[int, ...] = ()
    clip_fps: float = 0.0
    clip_frames: int = 0


class Clip(Protocol):
    """The frames of a clip, RGB pictures of one size.

    Attributes:
        fps: Frames of a second.
    """

    fps: float

    def __len__(self) -> int:
        """Returns the number of frames."""
        ...

    def __getitem__(self, number: int, /) -> Image.Image:
        """Returns a frame, which may be decoded now."""
        ...


class Pictures(Protocol):
    """Turns pictures into the arrays of one architecture.

    Attributes:
        most_tokens: Largest number of image tokens of one row.
        clip_token: The token of a clip, where the processor's image token stands for a picture; "":
            the model takes no clips.
    """

    most_tokens: float
    clip_token: str

    def check(self, size: tuple[int, int], frames: int = 1) -> None:
        """Refuses pictures of a size that `read` does not take, or clips.

        Args:
            size: Width and height, in pixels.
            frames: Number of frames of a clip; 1: it is a picture.

        Raises:
            InputError: `read` or `read_clip` refuses it. The caller puts the picture's name before
                the message.
        """
        ...

    def read(self, picture: Image.Image) -> tuple[Picture, int]:
        """Resizes and normalises an RGB picture.

        Returns:
            The picture and its number of image tokens.

        Raises:
            InputError: As in `check`.
        """
        ...

    def read_clip(self, clip: Clip) -> tuple[Picture, int]:
        """Samples frames of a clip, resizes and normalises them.

        Returns:
            The clip, a tree of arrays [C, H, W], and its number of tokens.

        Raises:
            InputError: As in `check`, or the frames have more patches than a row may have.
        """
        ...

    def pack(self, rows: Sequence[Sequence[Picture]], tokens: int) -> dict[str, np.ndarray]:
        """Packs pictures into the model's arrays.

        Args:
            rows: B rows of I pictures that `read` returned.
            tokens: Number of image tokens of the longest row of the batch in all processes.

        Returns:
            Arrays [B, ...] by the model's names. Their shapes depend only on `tokens`, B and I.
        """
        ...

    def pack_features(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        pictures: Sequence[Sequence[Picture]],
        tokens: int,
    ) -> dict[str, np.ndarray]:
        """Packs features as `pack` packs pictures.

        Args:
            rows: B rows of I features that `unpack_features` returned.
            pictures: Their pictures, whose arrays may be `jax.ShapeDtypeStruct`.
            tokens: As in `pack`.
        """
        ...

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[Picture]
    ) -> list[np.ndarray]:
        """Separates the vision features of packed rows that hold one picture each.

        Args:
            features: The model's `vision_features` [B, ...].
            pictures: The pictures of the first rows, whose arrays may be `jax.ShapeDtypeStruct`;
                the other rows are padding.

        Returns:
            Features [..., D] of each picture.
        """
        ...


class Stills:
    """The base of `Pictures` for models that take no clips."""

    clip_token = ""

    def check(self, size: tuple[int, int], frames: int = 1) -> None:
        """Refuses clips (see `Pictures`)."""
        if frames > 1:
            self._refuse(frames)

    def read_clip(self, clip: Clip) -> NoReturn:
        """Refuses clips (see `Pictures`)."""
        self._refuse(len(clip))

    def _refuse(self, frames: int) -> NoReturn:
        raise InputError(
            f"is a clip of {frames} frames, but the model takes pictures only; use a Qwen2-VL or"
            " Qwen2.5-VL, or store one frame as a picture"
        )


class OneSize(Stills):
    """Pictures that the processor resizes or crops to one size.

    Args:
        processor: A `LlavaProcessor` of transformers, or one with the same interface.
    """

    most_tokens = math.inf

    def __init__(self, processor: Any):
        self._processor = processor

    def check(self, size: tuple[int, int], frames: int = 1) -> None:
        """Refuses a long strip (see `Pictures`), which would fill the memory before the crop."""
        super().check(size, frames)
        short = self._processor.image_processor.size.shortest_edge
        if short and short**2 * max(size) > _MOST_RESIZED * min(size):
            raise InputError(
                f"is a strip of {size[0]} x {size[1]} pixels, which becomes too large when its"
                f" shorter side is resized to {short}; cut it"
            )

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """Resizes and normalises an RGB picture (see `Pictures`)."""
        self.check(picture.size)
        inputs = self._processor(text=self._processor.image_token, images=picture)
        (pixels,), (ids,) = np.asarray(inputs["pixel_values"], np.float32), inputs["input_ids"]
        return pixels, ids.count(self._processor.image_token_id)

    def pack(self, rows: Sequence[Sequence[np.ndarray]], tokens: int) -> dict[str, np.ndarray]:
        """Returns `pixel_values` float32 [B, I, C, H, W]; `tokens` is not used."""
        return {"pixel_values": _stacked(rows)}

    def pack_features(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        pictures: Sequence[Sequence[np.ndarray]],
        tokens: int,
    ) -> dict[str, np.ndarray]:
        """Returns `vision_features` [B, I, F, D]."""
        return {"vision_features": _stacked(rows)}

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns the features [F, D] of each picture."""
        return list(features[: len(pictures), 0])


def _stacked(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Stacks B rows of I arrays to [B, I, ...] with one copy."""
    flat = np.stack([array for row in rows for array in row])
    return flat.reshape(len(rows), -1, *flat.shape[1:])
