"""Pictures and clips as a processor returns them, matched with their tokens and grouped by example.

All of it happens on the host, before a step. Axes: as in `grids`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl import grids

if TYPE_CHECKING:
    from mmunlearner_jax.models.qwen2_vl.model import QwenVLConfig

# The arrays of pictures and clips, under the names that the processor gives them.
NAMES = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
NAMES += ("second_per_grid_ts",)

TEXT, PICTURE, CLIP = range(3)  # kinds of tokens


class Flat(NamedTuple):
    """Pictures, or clips, of a whole batch, as the processor returns them.

    Attributes:
        name: What its patches are called there, for messages.
        patches: Patches, float [N, K].
        grids: Grids (moments, height and width in patches), int [M, 3].
        seconds: Seconds of a moment, float [M].
    """

    name: str
    patches: np.ndarray
    grids: np.ndarray
    seconds: np.ndarray


def runs(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row, length and kind of every run of picture or clip tokens, row by row.

    Args:
        kinds: Kind of every token, int [B, T].
    """
    padded = np.pad(kinds, ((0, 0), (1, 1)))
    edges = padded[:, 1:] != padded[:, :-1]
    rows, starts = np.nonzero(edges & (padded[:, 1:] != TEXT))
    ends = np.nonzero(edges & (padded[:, :-1] != TEXT))[1]
    return rows, ends - starts, kinds[rows, starts]


def in_order(kinds: np.ndarray, pictures: Flat, clips: Flat) -> Flat:
    """Joins pictures and clips in the order of their tokens.

    Args:
        kinds: Kind of every token, int [B, T].
        pictures: The pictures.
        clips: The clips.

    Raises:
        InputError: There are more or fewer of them than runs of their tokens, or patches and grids
            do not match.
    """
    found = runs(kinds)[2]
    for kind, flat, what in ((PICTURE, pictures, "image"), (CLIP, clips, "video")):
        grids.match(flat.name, flat.patches, flat.grids)
        if (count := np.sum(found == kind)) != len(flat.grids):
            raise InputError(
                f"input_ids hold {count} runs of {what} tokens, but there are {len(flat.grids)}"
                f" in {flat.name}; give each one run, with another token between two runs"
            )
    order = np.empty(len(found), int)
    order[np.argsort(found, kind="stable")] = np.arange(len(found))
    thw = np.concatenate([pictures.grids, clips.grids])
    patches = np.concatenate([pictures.patches, clips.patches])
    parts = np.split(patches, np.cumsum(np.prod(thw, axis=1))[:-1])
    seconds = np.concatenate([pictures.seconds, clips.seconds])
    joined = np.concatenate([parts[place] for place in order])
    return Flat(pictures.name, joined, thw[order], seconds[order])


def check(kinds: np.ndarray, thw: np.ndarray, merge: int) -> np.ndarray:
    """Refuses pictures that do not match the image tokens.

    Args:
        kinds: Kind of every token, int [B, T]; every run of one kind but text stands for one
            picture or clip.
        thw: Grids (moments, patches in height, patches in width) of the pictures and clips, int
            [M, 3] or [B, I, 3].
        merge: Number of patches, in height and in width, that become one token.

    Returns:
        Number of pictures and clips of every row, int [B].

    Raises:
        InputError: A picture and its image tokens do not match; the message names the first.
    """
    used = thw[np.any(thw > 0, axis=-1)]
    for picture, (time, height, width) in enumerate(used.tolist()):
        if time < 1 or not height or height % merge or not width or width % merge:
            raise InputError(
                f"image_grid_thw: picture {picture} has {time} x {height} x {width} patches, but"
                f" the last two must be multiples of {merge}, and all positive; use the"
                " checkpoint's own processor"
            )
    rows, lengths, _ = runs(kinds)
    if len(lengths) != len(used):
        raise InputError(
            f"input_ids hold {len(lengths)} runs of image tokens, but there are {len(used)}"
            " pictures; give every picture one run, with another token between two runs"
        )
    own = rows if thw.ndim == 2 else np.nonzero(np.any(thw > 0, axis=-1))[0]
    for picture, need in enumerate(np.prod(used, axis=1) // merge**2):
        if lengths[picture] != need or own[picture] != rows[picture]:
            raise InputError(
                f"input_ids: row {rows[picture]} has {lengths[picture]} image tokens for picture"
                f" {picture}, which needs {need} in row {own[picture]}"
            )
    return np.bincount(rows, minlength=len(kinds))


def group(
    config: "QwenVLConfig",
    input_ids: Any,
    budgets: Sequence[int],
    *,
    pixel_values: Any = None,
    image_grid_thw: Any = None,
    pixel_values_videos: Any = None,
    video_grid_thw: Any = None,
    second_per_grid_ts: Any = None,
) -> dict[str, Any]:
    """Groups pictures and clips by example; see `QwenVL.group_pictures`.

    Args:
        config: Config of the model.
        input_ids: Token ids, int [B, T].
        budgets: Numbers of patches P that a row may have.
        pixel_values: Patches of the pictures, [N, K]; or all of this is grouped already.
        image_grid_thw: Grids of the pictures, int [M, 3].
        pixel_values_videos: Patches of the clips, [N, K].
        video_grid_thw: Grids of the clips, int [M, 3].
        second_per_grid_ts: Seconds of a moment of each clip, [M].

    Returns:
        The grouped arrays by name, {} if there are neither pictures nor clips.

    Raises:
        InputError: As `QwenVL.group_pictures`.
    """
    kinds, size = _kinds(config, input_ids), config.vision.spatial_merge_size
    if np.ndim(pixel_values) == 3:
        shown = shaped(
            *(config, 3, pixel_values, image_grid_thw, second_per_grid_ts),
            pixel_values_videos=pixel_values_videos,
            video_grid_thw=video_grid_thw,
        )
        check(kinds, np.asarray(image_grid_thw), size)
        return shown
    pictures = _flat(config, "pixel_values", pixel_values, image_grid_thw)
    clips = _flat(config, "pixel_values_videos", pixel_values_videos, video_grid_thw)
    if second_per_grid_ts is not None:
        clips = clips._replace(seconds=np.asarray(second_per_grid_ts, np.float32).reshape(-1))
        if len(clips.seconds) != len(clips.grids):
            raise InputError(
                f"second_per_grid_ts: {len(clips.seconds)} numbers for {len(clips.grids)} clips of"
                " video_grid_thw; give one for each"
            )
    joined = (
        in_order(kinds, pictures, clips) if np.any(kinds == CLIP) or len(clips.grids) else pictures
    )
    counts = check(kinds, joined.grids, size)
    if not len(joined.grids):
        return {}
    packed = grids.pack(joined.patches, joined.grids, counts, size, budgets)
    grouped: dict[str, Any] = dict(zip(NAMES[:2], packed, strict=True))
    if config.timed and len(clips.grids):
        grouped["second_per_grid_ts"] = grids.by_example(joined.seconds, counts)
    return grouped


def shaped(
    config: "QwenVLConfig",
    ndim: int,
    pixel_values: Any = None,
    image_grid_thw: Any = None,
    second_per_grid_ts: Any = None,
    **ungrouped: Any,
) -> dict[str, Any]:
    """Returns pictures by name, after a check of their shapes; {} if there are none.

    Args:
        config: Config of the model.
        ndim: Number of axes of the patches: 3 where they are grouped, else 2.
        pixel_values: Patches of that many axes.
        image_grid_thw: Grids of that many axes.
        second_per_grid_ts: Seconds of a moment, float [B, I].
        **ungrouped: Arrays that cannot be taken, unless they are None.

    Raises:
        InputError: A shape is wrong, or an array cannot be taken.
    """
    others = [name for name, array in ungrouped.items() if array is not None]
    if pixel_values is None and image_grid_thw is None and not others:
        return {}
    patch = int(np.prod(config.vision.patch_shape))
    shapes = [None if x is None else x.shape for x in (pixel_values, image_grid_thw)]
    ends = [shape and (len(shape), shape[-1]) for shape in shapes]
    if ends != [(ndim, patch), (ndim, 3)] or others:
        raise InputError(
            f"pixel_values and image_grid_thw: shapes {shapes[0]} and {shapes[1]} must be"
            f" [patches, {patch}] and [pictures, 3], as the processor returns them, or (under"
            f" jit always) [examples, patches, {patch}] and [examples, pictures, 3], as"
            " group_pictures(batch) returns them"
        )
    shown = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
    if config.timed and second_per_grid_ts is not None:
        shown["second_per_grid_ts"] = second_per_grid_ts
    return shown


def seen(
    config: "QwenVLConfig",
    input_ids: Any,
    vision_features: Any,
    image_grid_thw: Any = None,
    second_per_grid_ts: Any = None,
) -> dict[str, Any]:
    """Returns the features of the vision tower and their grids, checked, by name.

    Args:
        config: Config of the model.
        input_ids: Token ids, int [B, T]; None: they are not known under `jit`.
        vision_features: Features [B, P, D].
        image_grid_thw: Grids of pictures and clips, int [B, I, 3].
        second_per_grid_ts: Seconds of a moment, float [B, I].

    Raises:
        InputError: A shape is wrong, or the grids do not match the tokens.
    """
    features = config.vision.features
    if (
        image_grid_thw is None
        or (image_grid_thw.ndim, image_grid_thw.shape[-1]) != (3, 3)
        or (vision_features.ndim, vision_features.shape[-1]) != (3, features)
    ):
        shape = None if image_grid_thw is None else image_grid_thw.shape
        raise InputError(
            f"vision_features and image_grid_thw: shapes {vision_features.shape} and {shape}"
            f" must be [examples, patches, {features}] and [examples, pictures, 3]"
        )
    if input_ids is not None:
        thw = np.asarray(image_grid_thw)
        check(_kinds(config, input_ids), thw, config.vision.spatial_merge_size)
    shown = {"image_grid_thw": image_grid_thw, "vision_features": vision_features}
    if config.timed and second_per_grid_ts is not None:
        shown["second_per_grid_ts"] = second_per_grid_ts
    return shown


def _kinds(config: "QwenVLConfig", input_ids: Any) -> np.ndarray:
    """Returns the kind of every token, int [B, T]."""
    ids = np.asarray(input_ids)
    kinds = np.where(ids == config.image_token_id, PICTURE, TEXT)
    return np.where(ids == config.video_token_id, CLIP, kinds)


def _flat(config: "QwenVLConfig", name: str, patches: Any, thw: Any) -> Flat:
    """Returns the pictures or clips of a processor, checked; `name` is that of the patches."""
    if not shaped(config, 2, patches, thw):
        size = int(np.prod(config.vision.patch_shape))
        return Flat(name, np.zeros((0, size), np.float32), np.zeros((0, 3), int), np.zeros(0))
    return Flat(name, np.asarray(patches), np.asarray(thw), np.ones(len(thw), np.float32))
