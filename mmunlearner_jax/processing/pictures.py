"""Pictures between a processor and a model.

Pictures are read, kept and augmented one by one, and then packed into the model's arrays.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, F patches of a
picture, D vision features.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmunlearner_jax.errors import InputError

# A picture as `Pictures.read` returns it: an array float32 [C, H, W]; or a tree of such arrays,
# where the model sees a picture in several sizes.
Picture = Any

_MOST_RESIZED = 2**28  # pixels


class Pictures(Protocol):
    """Turns pictures into the arrays of one architecture.

    Attributes:
        most_tokens: Largest number of image tokens of one row.
    """

    most_tokens: float

    def check(self, size: tuple[int, int]) -> None:
        """Refuses pictures of a size that `read` does not take.

        Args:
            size: Width and height, in pixels.

        Raises:
            InputError: `read` refuses the size. The caller puts the picture's name before the
                message.
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
        self, rows: Sequence[Sequence[np.ndarray]], tokens: int
    ) -> dict[str, np.ndarray]:
        """Packs features that `unpack_features` returned, as `pack` packs pictures."""
        ...

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[Picture]
    ) -> list[np.ndarray]:
        """Separates the vision features of packed rows that hold one picture each.

        Args:
            features: The model's `vision_features` [B, ...].
            pictures: The pictures of the first rows; the other rows are padding.

        Returns:
            Features [..., D] of each picture.
        """
        ...


class OneSize:
    """Pictures that the processor resizes or crops to one size.

    Args:
        processor: A `LlavaProcessor` of transformers, or one with the same interface.
    """

    most_tokens = math.inf

    def __init__(self, processor: Any):
        self._processor = processor

    def check(self, size: tuple[int, int]) -> None:
        """Refuses a long strip (see `Pictures`), which would fill the memory before the crop."""
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
        self, rows: Sequence[Sequence[np.ndarray]], tokens: int
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
