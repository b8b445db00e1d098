"""LLaVA-NeXT's processor: the one of transformers, checked against the model; pictures in tiles.

Axes: B rows, I pictures of a row, C channels, S pixels of a tile's edge, N tiles of a picture, F
image tokens of a row, D vision features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import transformers
from PIL import Image

from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.models.llava.inputs import TRIED, build, check_tokens, place, refuse_sizes
from mmunlearner_jax.models.llava_next import tiles
from mmunlearner_jax.models.llava_next.model import LlavaNextConfig
from mmunlearner_jax.processing.companions import LARGEST_EDGE, MEND, Companions, try_picture
from mmunlearner_jax.processing.pictures import Pictures, Sizes, Stills


def load(config: LlavaNextConfig, files: Companions, sizes: Sizes) -> tuple[Any, Pictures, int]:
    """Makes the processor; see `architecture.Inputs`."""
    why = "image_grid_pinpoints of the checkpoint say the sizes of LLaVA-NeXT's pictures"
    refuse_sizes(why, sizes)
    own = [list(pinpoint) for pinpoint in config.image_grid_pinpoints]
    stored = files.pictures.get("image_grid_pinpoints")
    if stored is not None and stored != own:
        raise InputError(
            f"{files.pictures_file}: image_grid_pinpoints={shown(stored)}, but config.json has"
            f" {shown(own)}; use the files of one checkpoint"
        )
    if max(map(max, own)) > LARGEST_EDGE:
        raise InputError(
            f"{files.folder / 'config.json'}: image_grid_pinpoints={shown(own)} has an edge above"
            f" {LARGEST_EDGE}; {MEND}"
        )
    processor = build(
        *(transformers.LlavaNextProcessor, "LlavaNextImageProcessor", config, files),
        image_grid_pinpoints=own,
    )
    if not isinstance(processor.image_processor, transformers.LlavaNextImageProcessorPil):
        raise InputError(
            f"{files.pictures_file}: image_processor_type="
            f"{shown(files.pictures['image_processor_type'])} is not LLaVA-NeXT's; {MEND}"
        )
    pictures = InTiles(processor, config)

    def tokens(size):
        return int(tiles.tokens(np.array(config.layout(size[::-1])), config.side))

    for size in TRIED:
        _, made = try_picture(pictures, size, place(files))
        check_tokens(made, tokens(size), config, files)
    return processor, pictures, tokens((config.vision.image_size,) * 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tiled:
    """A picture in two sizes.

    Attributes:
        base: The base image, float32 [C, S, S].
        larger: The larger picture with its padding, float32 [C, rows * S, columns * S].
        size: Height and width that the picture came with, in pixels.
    """

    base: np.ndarray
    larger: np.ndarray
    size: tuple[int, int] = field(metadata={"static": True})


class InTiles(Stills):
    """LLaVA-NeXT's pictures. All arrays have room for a picture with the most tiles.

    It takes pictures of every size, as none is enlarged beyond its pinpoint.

    Args:
        processor: A `LlavaNextProcessor` of transformers.
        config: Config of the model.
    """

    most_tokens = math.inf

    def __init__(self, processor: Any, config: LlavaNextConfig):
        self._processor, self._config = processor, config

    def read(self, picture: Image.Image) -> tuple[Tiled, int]:
        """Resizes and normalises an RGB picture (see `Pictures`)."""
        inputs = self._processor(text=self._processor.image_token, images=picture)
        (cut,), (ids,) = np.asarray(inputs["pixel_values"], np.float32), inputs["input_ids"]
        size, vision = (picture.height, picture.width), self._config.vision
        rows, columns, *_ = self._config.layout(size)
        wanted = (1 + rows * columns, vision.num_channels, vision.image_size, vision.image_size)
        if cut.shape != wanted:
            raise ValueError(f"size, crop_size: tiles {cut.shape} are not the model's, {wanted}")
        larger = tiles.join(cut[1:], columns)
        return Tiled(cut[0], larger, size), ids.count(self._processor.image_token_id)

    def pack(self, rows: Sequence[Sequence[Tiled]], tokens: int) -> dict[str, np.ndarray]:
        """Returns `pixel_values` float32 [B, I, N, C, S, S] and `image_sizes` int32 [B, I, 4]."""
        channels, edge, _ = rows[0][0].base.shape
        room = (len(rows), len(rows[0]), self._config.slots, channels, edge, edge)
        pixels = np.zeros(room, np.float32)
        for row, held in zip(pixels, rows, strict=True):
            for slots, picture in zip(row, held, strict=True):
                cut = tiles.cut(picture.larger, edge)
                slots[0], slots[1 : 1 + len(cut)] = picture.base, cut
        layouts = [[self._config.layout(picture.size) for picture in row] for row in rows]
        return {"pixel_values": pixels, "image_sizes": np.array(layouts, np.int32)}

    def pack_features(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        pictures: Sequence[Sequence[Tiled]],
        tokens: int,
    ) -> dict[str, np.ndarray]:
        """Returns `vision_features` [B, F, D] and `image_sizes` int32 [B, I, 4]."""
        side, length = self._config.side, len(rows[0]) * self._config.image_tokens(0)
        packed = np.zeros((len(rows), length, rows[0][0].shape[-1]), rows[0][0].dtype)
        layouts = np.zeros((len(rows), len(rows[0]), 4), np.int32)
        for number, row in enumerate(rows):
            end = 0
            for picture, seen in enumerate(row):
                lines, width, _ = seen.shape
                first = -(-(side**2) // width)  # lines of the base image
                flat = seen.reshape(lines * width, -1)
                held = np.concatenate([flat[: side**2], flat[first * width :]])
                packed[number, end : end + len(held)] = held
                end += len(held)
                # Only height and width count now: the features are no longer those of tiles.
                layouts[number, picture] = 1, 1, lines - first, width - 1
        return {"vision_features": packed, "image_sizes": layouts}

    def unpack_features(self, features: np.ndarray, pictures: Sequence[Tiled]) -> list[np.ndarray]:
        """Returns arrays [lines, width, D]: the base image in whole lines, then the larger picture.

        A line has a place for the new line. So the shape tells height and width of the picture.
        """
        side = self._config.side
        unpacked = []
        for row, picture in zip(features, pictures, strict=False):
            *_, height, width = self._config.layout(picture.size)
            first = -(-(side**2) // (width + 1))
            lines = np.zeros(((first + height) * (width + 1), row.shape[-1]), row.dtype)
            lines[: side**2] = row[: side**2]
            lines[first * (width + 1) :] = row[side**2 :][: height * (width + 1)]
            unpacked.append(lines.reshape(first + height, width + 1, -1))
        return unpacked
