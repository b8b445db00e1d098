"""Pictures between a processor and a model: single while they are kept and changed, then packed.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, P patches of a
row, K numbers of one patch, F patches of a picture, D vision features.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl import grids

_MOST_RESIZED = 2**28  # pixels
_MOST_OBLONG = 200  # as in `smart_resize` of transformers


class Pictures(Protocol):
    """What one architecture makes of pictures.

    Attributes:
        most_tokens: how many the pictures of one row may have together.
    """

    most_tokens: float

    def check(self, size: tuple[int, int]) -> None:
        """Looks whether `read` takes pictures of a size.

        Args:
            size: width and height.

        Raises:
            InputError: it does not; the message is to follow the picture's name.
        """
        ...

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """Resizes and normalises an RGB picture.

        Returns:
            float32 [C, H, W], and how many tokens stand for it.

        Raises:
            InputError: as `check`.
        """
        ...

    def pack(self, rows: Sequence[Sequence[np.ndarray]], tokens: int) -> dict[str, np.ndarray]:
        """Makes the model's arrays of pictures [C, H, W] that `read` gave.

        Args:
            rows: B rows of as many pictures each.
            tokens: of the pictures of the longest row there is, these or other processes'.

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
    """LLaVA's pictures: all are squeezed or cropped to one size.

    Args:
        processor: `LlavaProcessor` of transformers.
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


class AnySize:
    """Qwen2-VL's pictures: they keep their shape, and are cut into patches.

    Args:
        processor: `Qwen2VLImageProcessorPil` of transformers.
        budgets: numbers of patches P that a row may have; steps are compiled once for each. By
            default any power of two of tokens.

    Raises:
        InputError: a budget is no number of whole tokens.
    """

    def __init__(self, processor: Any, budgets: Sequence[int] = ()):
        self._processor, self._budgets = processor, tuple(budgets)
        self._merge = processor.merge_size
        self._unit = self._merge**2  # patches of one token
        if wrong := [budget for budget in budgets if budget < 1 or budget % self._unit]:
            raise InputError(
                f"config.model.patch_budgets: {wrong[0]} is no multiple of {self._unit}, the"
                " patches of one token"
            )
        self.most_tokens = max(budgets) // self._unit if budgets else math.inf

    def check(self, size: tuple[int, int]) -> None:
        """See `Pictures`; small pictures are enlarged, as transformers does."""
        if max(size) > _MOST_OBLONG * min(size):
            raise InputError(
                f"is a strip of {size[0]} x {size[1]} pixels, one side more than {_MOST_OBLONG}"
                " times the other; cut it"
            )

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """See `Pictures`; what the processor cuts into patches is put together again."""
        self.check(picture.size)
        p = self._processor
        inputs = p(images=[picture], return_tensors="np")
        ((_, high, wide),) = inputs["image_grid_thw"].tolist()
        blocks = np.asarray(inputs["pixel_values"], np.float32).reshape(
            *(high // self._merge, wide // self._merge, self._merge, self._merge, -1),
            *(p.temporal_patch_size, p.patch_size, p.patch_size),
        )
        pixels = blocks[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6)
        pixels = pixels.reshape(len(pixels), high * p.patch_size, wide * p.patch_size)
        return pixels, high * wide // self._unit

    def pack(self, rows: Sequence[Sequence[np.ndarray]], tokens: int) -> dict[str, np.ndarray]:
        """`pixel_values` float32 [B, P, K] and `image_grid_thw` int32 [B, I, 3]."""
        p = self._processor
        cut = [
            p.patchify(pixels, p.patch_size, self._merge, p.temporal_patch_size)
            for row in rows
            for pixels in row
        ]
        patches, places = self._packed(cut, rows, tokens)
        return {"pixel_values": patches, "image_grid_thw": places}

    def pack_features(
        self, rows: Sequence[Sequence[np.ndarray]], tokens: int
    ) -> dict[str, np.ndarray]:
        """`vision_features` [B, P, D] and `image_grid_thw` int32 [B, I, 3]."""
        cut = [
            (seen.reshape(-1, seen.shape[-1]), *(side * self._merge for side in seen.shape[:2]))
            for row in rows
            for seen in row
        ]
        patches, places = self._packed(cut, rows, tokens)
        return {"vision_features": patches, "image_grid_thw": places}

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """[height in tokens, width in tokens, patches of a token, D] of each."""
        side = self._processor.patch_size * self._merge
        found = []
        for row, pixels in zip(features, pictures, strict=False):
            high, wide = (size // side for size in pixels.shape[1:])
            found.append(row[: high * wide * self._unit].reshape(high, wide, self._unit, -1))
        return found

    def _packed(self, cut, rows, tokens):
        """Patches, height and width of every picture, in rows: [B, P, ...], grids [B, I, 3]."""
        places = np.array([(1, high, wide) for _, high, wide in cut])
        room = grids.room([tokens * self._unit], self._merge, self._budgets)
        counts = np.array([len(row) for row in rows])
        patches = np.concatenate([patches for patches, _, _ in cut])
        return grids.pack(patches, places, counts, self._merge, (room,))
