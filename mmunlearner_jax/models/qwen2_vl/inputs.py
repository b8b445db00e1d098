"""Qwen2-VL's processor without torchvision, and its pictures of any size and clips.

Axes: B rows, I pictures of a row, C channels, H height and W width of a picture, P patches of a
row, K numbers of one patch, D vision features.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers
from PIL import Image

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.qwen2_vl import grids, sampling
from mmunlearner_jax.models.qwen2_vl.model import QwenVLConfig
from mmunlearner_jax.processing.companions import (
    LARGEST_EDGE,
    MEND,
    Companions,
    load_image_processor,
    load_tokenizer,
    try_picture,
)
from mmunlearner_jax.processing.pictures import Clip, Picture, Pictures, Sizes

_MOST_OBLONG = 200  # as in `smart_resize` of transformers


def load(config: QwenVLConfig, files: Companions, sizes: Sizes) -> tuple[Any, Pictures, int]:
    """Makes the processor; see `architecture.Inputs`."""
    least, most = _pixels(files, sizes.min_pixels, sizes.max_pixels)
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
    processor = Qwen2VLProcessor(image_processor, tokenizer, sampling.stored(files))
    sampler = None
    if tokenizer.get_vocab().get(AnySize.clip_token) == config.video_token_id:
        sampler = sampling.sampler(files, sizes, vision.temporal_patch_size, size)
    pictures = AnySize(image_processor, sizes.patch_budgets, sampler, timed=config.timed)
    side = vision.patch_size * vision.spatial_merge_size
    pixels, tokens = try_picture(pictures, (side + 5, side + 9), files.pictures_file)
    if len(pixels) != vision.in_channels:
        raise InputError(
            f"{files.folder}: a picture has {len(pixels)} channels, but config.json says"
            f" in_channels={vision.in_channels}; use the files of one checkpoint"
        )
    return processor, pictures, tokens


class Qwen2VLProcessor:
    """`Qwen2VLProcessor` of transformers, whose video processor needs torchvision.

    The class of transformers loads the files that this one saves.

    Args:
        image_processor: A `Qwen2VLImageProcessorPil` of transformers.
        tokenizer: A tokenizer of transformers with a chat template.
        clips: Options of the video processor; none: the checkpoint has none of its own.

    Raises:
        InputError: The tokenizer has no chat template, or no image token.
    """

    image_token = "<|image_pad|>"

    def __init__(
        self, image_processor: Any, tokenizer: Any, clips: Mapping[str, Any] | None = None
    ):
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
        self._clips = dict(clips or {})
        self.chat_template = tokenizer.chat_template

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files of tokenizer, chat template, image and video processor."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        if self._clips:
            Path(folder, sampling.FILE).write_text(json.dumps(self._clips, indent=2) + "\n")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frames:
    """The sampled frames of a clip.

    Attributes:
        pixels: The frames, float32 [C, H, W] each; a multiple of those that a patch spans.
        seconds: Seconds that a patch spans.
    """

    pixels: tuple[np.ndarray, ...]
    seconds: float = field(metadata={"static": True})


class AnySize:
    """Qwen2-VL's pictures, which keep their aspect ratio and are cut into patches; and clips.

    Args:
        processor: A `Qwen2VLImageProcessorPil` of transformers.
        budgets: Numbers of patches P that a row may have; steps are compiled once for each. (): the
            patches of a power of two of tokens.
        sampler: Says which frames of a clip are taken; None: the checkpoint takes no clips.
        timed: Whether the model takes the seconds of a moment.

    Raises:
        InputError: A budget is not a whole number of tokens.
    """

    clip_token = "<|video_pad|>"

    def __init__(
        self,
        processor: Any,
        budgets: Sequence[int] = (),
        sampler: sampling.Sampler | None = None,
        *,
        timed: bool = False,
    ):
        self._processor, self._budgets = processor, tuple(budgets)
        self._sampler, self._timed = sampler, timed
        self._merge = processor.merge_size
        self._unit = self._merge**2  # patches of one token
        if wrong := [budget for budget in budgets if budget < 1 or budget % self._unit]:
            raise InputError(
                f"config.model.patch_budgets: {wrong[0]} is not a multiple of {self._unit}, the"
                " patches of one token"
            )
        self.most_tokens = max(budgets) // self._unit if budgets else math.inf

    def check(self, size: tuple[int, int], frames: int = 1) -> None:
        """Refuses pictures that are too oblong (see `Pictures`); small ones are enlarged."""
        if max(size) > _MOST_OBLONG * min(size):
            raise InputError(
                f"is a strip of {size[0]} x {size[1]} pixels, one side more than {_MOST_OBLONG}"
                " times the other; cut it"
            )
        if frames > 1 and self._sampler is None:
            raise InputError(
                f"is a clip of {frames} frames, but the checkpoint's tokenizer has no"
                f" {self.clip_token} that is the video_token_id of config.json, so no frame can be"
                " sampled; use the files of one checkpoint"
            )

    def read(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        """Resizes a picture (see `Pictures`)."""
        self.check(picture.size)
        pixels = self._resized(picture)
        return pixels, math.prod(self._grid(pixels)) // self._unit

    def read_clip(self, clip: Clip) -> tuple[Frames, int]:
        """Samples and resizes the frames of a clip (see `Pictures`)."""
        self.check(clip[0].size, len(clip))
        assert self._sampler is not None
        places = self._sampler.places(len(clip), clip.fps)
        pixels = [self._resized(clip[place], size=dict(self._sampler.size)) for place in places]
        if len({frame.shape for frame in pixels}) > 1:
            raise InputError("is a clip with frames of several sizes; give all one size")
        frames = Frames(tuple(pixels), self._sampler.seconds(len(clip), clip.fps))
        patches = math.prod(self._grid(frames))
        if patches > self.most_tokens * self._unit:
            _, height, width = pixels[0].shape
            raise InputError(
                f"is a clip: {len(pixels)} frames of {width} x {height} pixels are sampled, and"
                f" have {patches} patches, above the {max(self._budgets)} of"
                " config.model.patch_budgets; raise the budget, or lower config.model.clip_fps,"
                " clip_frames or max_pixels"
            )
        return frames, patches // self._unit

    def pack(self, rows: Sequence[Sequence[Picture]], tokens: int) -> dict[str, np.ndarray]:
        """Returns `pixel_values` float32 [B, P, K] and `image_grid_thw` int32 [B, I, 3].

        For a model that takes them, there are `second_per_grid_ts`, float32 [B, I], too; 0 of a
        picture.
        """
        cut = [self._cut(picture) for row in rows for picture in row]
        return self._packed("pixel_values", cut, rows, tokens)

    def pack_features(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        pictures: Sequence[Sequence[Picture]],
        tokens: int,
    ) -> dict[str, np.ndarray]:
        """Returns `vision_features` [B, P, D] and the other arrays of `pack`."""
        cut = [seen.reshape(-1, seen.shape[-1]) for row in rows for seen in row]
        return self._packed("vision_features", cut, pictures, tokens)

    def unpack_features(
        self, features: np.ndarray, pictures: Sequence[Picture]
    ) -> list[np.ndarray]:
        """Returns arrays [height in tokens, width in tokens, patches of a token, D].

        The height of a clip is that of all its moments together.
        """
        unpacked = []
        for row, picture in zip(features, pictures, strict=False):
            moments, high, wide = self._grid(picture)
            lines = moments * high // self._merge
            seen = row[: moments * high * wide]
            unpacked.append(seen.reshape(lines, wide // self._merge, self._unit, -1))
        return unpacked

    def _resized(self, picture: Image.Image, **options: Any) -> np.ndarray:
        """Resizes and normalises a picture; the processor's patches are joined again."""
        p = self._processor
        inputs = p(images=[picture], return_tensors="np", **options)
        ((_, high, wide),) = inputs["image_grid_thw"].tolist()
        blocks = np.asarray(inputs["pixel_values"], np.float32).reshape(
            *(high // self._merge, wide // self._merge, self._merge, self._merge, -1),
            *(p.temporal_patch_size, p.patch_size, p.patch_size),
        )
        pixels = blocks[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6)
        return pixels.reshape(len(pixels), high * p.patch_size, wide * p.patch_size)

    def _grid(self, picture: Picture) -> tuple[int, int, int]:
        """Returns the number of moments, and the height and width in patches."""
        p = self._processor
        frames = picture.pixels if isinstance(picture, Frames) else (picture,)
        _, height, width = frames[0].shape
        moments = -(-len(frames) // p.temporal_patch_size)
        return moments, height // p.patch_size, width // p.patch_size

    def _cut(self, picture: Picture) -> np.ndarray:
        """Cuts a picture or clip into patches [N, K]; a picture is the same at all times."""
        p, merge = self._processor, self._merge
        together, side = p.temporal_patch_size, p.patch_size
        if isinstance(picture, Frames):
            frames = np.stack(picture.pixels)
        else:
            frames = np.broadcast_to(picture, (together, *picture.shape))
        moments, high, wide = self._grid(picture)
        blocks = frames.reshape(
            *(moments, together, frames.shape[1]),
            *(high // merge, merge, side, wide // merge, merge, side),
        )
        return blocks.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(moments * high * wide, -1)

    def _packed(
        self,
        name: str,
        cut: list[np.ndarray],
        rows: Sequence[Sequence[Picture]],
        tokens: int,
    ) -> dict[str, np.ndarray]:
        """Packs the patches, or their features, of the pictures of some rows."""
        pictures, counts = [x for row in rows for x in row], np.array([len(row) for row in rows])
        places = np.array([self._grid(picture) for picture in pictures])
        room = grids.room([tokens * self._unit], self._merge, self._budgets)
        patches, thw = grids.pack(np.concatenate(cut), places, counts, self._merge, (room,))
        arrays = {name: patches, "image_grid_thw": thw}
        if self._timed:
            own = [picture.seconds if isinstance(picture, Frames) else 0 for picture in pictures]
            arrays["second_per_grid_ts"] = grids.by_example(np.array(own, np.float32), counts)
        return arrays


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
