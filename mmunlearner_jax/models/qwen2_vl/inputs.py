"""Qwen2-VL's processor without torchvision, and its pictures of any size.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, P patches of a
row, K numbers of one patch, D vision features.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.qwen2_vl import grids
from mmunlearner_jax.models.qwen2_vl.model import QwenVLConfig
from mmunlearner_jax.processing.companions import (
    LARGEST_EDGE,
    MEND,
    Companions,
    load_image_processor,
    load_tokenizer,
    try_picture,
)
from mmunlearner_jax.processing.pictures import Pictures

_MOST_OBLONG = 200  # as in `smart_resize` of transformers


def load(
    config: QwenVLConfig,
    files: Companions,
    min_pixels: int,
    max_pixels: int,
    patch_budgets: tuple[int, ...],
) -> tuple[Any, Pictures, int]:
    """Makes the processor; see `architecture.Inputs`."""
    least, most = _pixels(files, min_pixels, max_pixels)
    vision = config.vision
    expected = {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if any(files.pictures.get(key) not in (None, size) for key, size in expected.items()):
        raise InputError(
            f"{files.folder}: {files.pictures_file.name} and config.json differ in patch_size,"
            " merge_size or temporal_patch_size; use the files of one checkpoint"
        )
    size = {"shortest_edge": least, "longest_edge": most}
    image_processor = load_image_processor(
        files, "Qwen2VLImageProcessor", size=size, min_pixels=None, max_pixels=None, **expected
    )
    if not isinstance(image_processor, transformers.Qwen2VLImageProcessorPil):
        raise InputError(
            f"{files.pictures_file}: image_processor_type="
            f"{shown(files.pictures['image_processor_type'])} is not Qwen2-VL's; {MEND}"
        )
    kind = str(files.tokenizer.get("tokenizer_class") or "Qwen2Tokenizer")
    own_kind = kind.removesuffix("Fast") == "Qwen2Tokenizer"
    made = transformers.Qwen2Tokenizer if own_kind else transformers.PreTrainedTokenizerFast
    tokenizer = load_tokenizer(files, made)
    tokenizer.chat_template = files.template
    processor = Qwen2VLProcessor(image_processor, tokenizer)
    pictures = AnySize(image_processor, patch_budgets)
    side = vision.patch_size * vision.spatial_merge_size
    pixels, tokens = try_picture(pictures, (side + 5, side + 9), files.pictures_file)
    if len(pixels) != vision.in_channels:
        raise InputError(
            f"{files.folder}: a picture has {len(pixels)} channels, but config.json says"
            f" in_channels={vision.in_channels}; use the files of one checkpoint"
        )
    return processor, pictures, tokens


class Qwen2VLProcessor:
    """`Qwen2VLProcessor` of transformers without videos, which need torchvision.

    The class of transformers loads the files that this one saves.

    Args:
        image_processor: A `Qwen2VLImageProcessorPil` of transformers.
        tokenizer: A tokenizer of transformers with a chat template.

    Raises:
        InputError: The tokenizer has no chat template, or no image token.
    """

    image_token = "<|image_pad|>"

    def __init__(self, image_processor: Any, tokenizer: Any):
        if not tokenizer.chat_template:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; add the"
                " checkpoint's chat_template.jinja"
            )
        self.image_token_id = tokenizer.get_vocab().get(self.image_token)
        if self.image_token_id is None:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no token {self.image_token}; use the"
                " tokenizer of a Qwen2-VL checkpoint"
            )
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = tokenizer.chat_template

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files of tokenizer, chat template and image processor."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


class AnySize:
    """Qwen2-VL's pictures, which keep their aspect ratio and are cut into patches.

    Args:
        processor: A `Qwen2VLImageProcessorPil` of transformers.
        budgets: Numbers of patches P that a row may have; steps are compiled once for each. (): the
            patches of a power of two of tokens.

    Raises:
        InputError: A budget is not a whole number of tokens.
    """

    def __init__(self, processor: Any, budgets: Sequence[int] = ()):
        self._processor, self._budgets = processor, tuple(budgets)
        self._merge = processor.merge_size
        self._unit = self._merge**2  # patches of one token
        if wrong := [budget for budget in budgets if budget < 1 or budget % self._unit]:
            raise InputError(
                f"config.model.patch_budgets: {wrong[0]} is not a multiple of {self._unit}, the"
                " patches of one token"
            )
        self.most_tokens = max(budgets) // self._unit if budgets else math.inf

    def check(self, size: tuple[int, int]) -> None:
        """Refuses pictures that are too oblong (see `Pictures`); small ones are enlarged."""
        if max(size) > _MOST_OBLONG * min(size):
            raise InputError(
                f"is a strip of {size[0]} x {size[1]} pixels, one side more than {_MOST_OBLONG}"
                " times the other; cut it"
            )

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """Resizes a picture (see `Pictures`); the processor's patches are joined again."""
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
        """Returns `pixel_values` float32 [B, P, K] and `image_grid_thw` int32 [B, I, 3]."""
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
        """Returns `vision_features` [B, P, D] and `image_grid_thw` int32 [B, I, 3]."""
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
        """Returns arrays [height in tokens, width in tokens, patches of a token, D]."""
        side = self._processor.patch_size * self._merge
        unpacked = []
        for row, pixels in zip(features, pictures, strict=False):
            high, wide = (size // side for size in pixels.shape[1:])
            unpacked.append(row[: high * wide * self._unit].reshape(high, wide, self._unit, -1))
        return unpacked

    def _packed(self, cut, rows, tokens):
        """Packs (patches, height, width) of every picture: patches [B, P, ...], grids [B, I, 3]."""
        places = np.array([(1, high, wide) for _, high, wide in cut])
        room = grids.room([tokens * self._unit], self._merge, self._budgets)
        counts = np.array([len(row) for row in rows])
        patches = np.concatenate([patches for patches, _, _ in cut])
        return grids.pack(patches, places, counts, self._merge, (room,))


def _pixels(files: Companions, least: int, most: int) -> tuple[int, int]:
    """Returns the number of pixels of the smallest and of the largest picture.

    Args:
        files: The small files of the checkpoint; any release of transformers may have written them.
        least: Value that replaces the smallest number in the files; 0: none.
        most: Value that replaces the largest number in the files; 0: none.
    """
    stored = files.pictures
    with refusing(f"{files.pictures_file}: size", MEND):
        size = dict(stored.get("size") or transformers.Qwen2VLImageProcessorPil.size)
    limits = []
    for option, old, new in ((least, "min", "shortest_edge"), (most, "max", "longest_edge")):
        old = f"{old}_pixels"
        values = (option or None, stored.get(old), size.get(new), size.get(old))
        pixels = next((value for value in values if value is not None), None)
        if type(pixels) is not int or pixels < 1:
            raise InputError(
                f"{files.pictures_file}: size={shown(size)} has no {new} (or {old}) that is a"
                f" number of pixels; give both, or leave size out"
            )
        limits.append(pixels)
    least, most = limits
    if least > most:
        raise InputError(
            f"config.model.min_pixels: {least} (from the config or {files.folder}) is above"
            f" max_pixels, {most}; give less"
        )
    if least > LARGEST_EDGE**2:
        raise InputError(
            f"config.model.min_pixels: {least} (from the config or {files.folder}) enlarges every"
            f" picture above {LARGEST_EDGE} x {LARGEST_EDGE}; give less"
        )
    return least, most
