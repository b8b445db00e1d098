"""Pictures between a processor and a model: single while they are kept and changed, then packed.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, F patches of a
picture, D vision features.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmunlearner_jax.errors import InputError

_MOST_RESIZED = 2**28  # pixels


class Pictures(Protocol):
    """What one architecture makes of pictures.

    Attributes:
        most_tokens: How many the pictures of one row may have together.
    """

    most_tokens: float

    def check(self, size: tuple[int, int]) -> None:
        """Looks whether `read` takes pictures of a size.

        Args:
            size: Width and height.

        Raises:
            InputError: It does not; the message is to follow the picture's name.
        """
        ...

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """Resizes and normalises an RGB picture.

        Returns:
            Float32 [C, H, W], and how many tokens stand for it.

        Raises:
            InputError: As `check`.
        """
        ...

    def pack(self, rows: Sequence[Sequence[np.ndarray]], tokens: int) -> dict[str, np.ndarray]:
        """Makes the model's arrays of pictures [C, H, W] that `read` gave.

        Args:
            rows: B rows of as many pictures each.
            tokens: Of the pictures of the longest row there is, these or other processes'.

        Returns:
            Arrays [B, ...] by the model's names; their shapes follow from the arguments' lengths
            and `tokens` alone.
        """
        ...

    def pack_features(
        self, rows: Sequence[Sequence[np.ndarray]], tokens: int
    ) -> dict[str, np.ndarray]:
        """Makes the model's arrays, as `pack` does, of features that `unpack_features` gave."""
        ...

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Takes apart what the vision tower makes of packed rows of one picture each.

        Args:
            features: [B, ...], of `vision_features` of the model.
            pictures: [C, H, W], those of the first rows.

        Returns:
            Features [..., D] of each.
        """
        ...


class OneSize:
    """Pictures that the processor squeezes or crops to one size.

    Args:
        processor: `LlavaProcessor` of transformers, or one that is called like it.
    """

    most_tokens = math.inf

    def __init__(self, processor: Any):
        self._processor = processor

    def check(self, size: tuple[int, int]) -> None:
        """See `Pictures`; a long strip would fill the memory before it is cropped."""
        short = self._processor.image_processor.size.shortest_edge
        if short and short**2 * max(size) > _MOST_RESIZED * min(size):
            raise InputError(
                f"is a strip of {size[0]} x {size[1]} pixels, too many once its shorter side has"
                f" {short}; cut it"
            )

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """See `Pictures`."""
        self.check(picture.size)
        inputs = self._processor(text=self._processor.image_token, images=picture)
        (pixels,), (ids,) = np.asarray(inputs["pixel_values"], np.float32), inputs["input_ids"]
        return pixels, ids.count(self._processor.image_token_id)

    def pack(self, rows: Sequence[Sequence[np.ndarray]], tokens: int) -> dict[str, np.ndarray]:
        """`pixel_values` float32 [B, I, C, H, W]; a size of its own for `tokens` is not needed."""
        return {"pixel_values": _stacked(rows)}

    def pack_features(
        self, rows: Sequence[Sequence[np.ndarray]], tokens: int
    ) -> dict[str, np.ndarray]:
        """`vision_features` [B, I, F, D]."""
        return {"vision_features": _stacked(rows)}

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """[F, D] of each."""
        return list(features[: len(pictures), 0])


def _stacked(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """[B, I, ...] of B rows of I arrays, copied once."""
    flat = np.stack([array for row in rows for array in row])
    return flat.reshape(len(rows), -1, *flat.shape[1:])
