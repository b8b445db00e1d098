"""LLaVA's processor: the one of transformers, checked against the model."""

from typing import Any

import transformers

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.llava.model import LlavaConfig, LlavaFamilyConfig
from mmunlearner_jax.processing.companions import (
    LARGEST_EDGE,
    MEND,
    Companions,
    load_image_processor,
    load_tokenizer,
    try_picture,
)
from mmunlearner_jax.processing.pictures import OneSize, Pictures, Sizes

TRIED = (60, 40), (40, 60)  # width and height of the pictures that processors are tried on


def load(config: LlavaConfig, files: Companions, sizes: Sizes) -> tuple[Any, Pictures, int]:
    """Makes the processor (see `architecture.Inputs`); all pictures have one size."""
    refuse_sizes("all pictures of LLaVA have one size", sizes)
    processor = build(transformers.LlavaProcessor, "LlavaImageProcessor", config, files)
    pictures, tokens = OneSize(processor), config.image_tokens(0)
    shape = config.picture_arrays(0)["pixel_values"].shape[1:]
    for size in TRIED:
        pixels, made = try_picture(pictures, size, place(files))
        if pixels.shape != shape:
            raise InputError(
                f"{files.pictures_file}: a picture of {size[0]} x {size[1]} pixels becomes"
                f" {pixels.shape}, but the model takes {shape}; set size, crop_size and"
                " do_center_crop so that every picture gets the model's size"
            )
        check_tokens(made, tokens, config, files)
    return processor, pictures, tokens


def check_tokens(made: int, wanted: int, config: LlavaFamilyConfig, files: Companions) -> None:
    """Refuses a processor that gives a picture another number of image tokens than the model."""
    if made != wanted:
        expected = _expected(config)
        raise InputError(
            f"{files.folder / 'processor_config.json'}: a picture becomes {made} image tokens,"
            f" but the model makes {wanted} features; remove {', '.join(expected)}, or set them"
            f" to {', '.join(map(str, expected.values()))}"
        )


def place(files: Companions) -> str:
    """Returns the name of the processor's files for errors."""
    return f"{files.folder}: processor_config.json or preprocessor_config.json"


def refuse_sizes(why: str, sizes: Sizes) -> None:
    """Refuses the options of pictures of any size and of clips.

    Args:
        why: Why the model takes none.
        sizes: The options.

    Raises:
        InputError: A value is given.
    """
    if sizes != Sizes():
        raise InputError(
            f"config.model.min_pixels, max_pixels, patch_budgets, clip_fps, clip_frames: {why};"
            " leave these fields 0, 0, (), 0 and 0"
        )


def _expected(config: LlavaFamilyConfig) -> dict[str, Any]:
    """Returns the fields of a processor that follow from the model."""
    return {
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": config.feature_select,
        "num_additional_image_tokens": config.vision.class_tokens,
    }


def build(
    kind: Any, image_kind: str, config: LlavaFamilyConfig, files: Companions, **options: Any
) -> Any:
    """Makes a processor from a checkpoint's files.

    Args:
        kind: A processor's class of transformers.
        image_kind: Name of the image processor's class if the files name none.
        config: Config of the model.
        files: The small files of the checkpoint.
        **options: Options that replace those of the image processor.

    Raises:
        InputError: A file is damaged, or pictures would be too large.
    """
    expected = _expected(config)
    stored = {k: files.processor[k] for k in expected if files.processor.get(k) is not None}
    image_processor = load_image_processor(files, image_kind, **options)
    with refusing(f"{files.pictures_file}: size, crop_size", MEND):
        sizes = [dict(getattr(image_processor, name, None) or {}) for name in ("size", "crop_size")]
        edges = [edge for size in sizes for edge in size.values() if edge]
        if max([*edges, config.vision.image_size]) > LARGEST_EDGE:
            raise ValueError(f"{shown(edges)} is above {LARGEST_EDGE}")
    tokenizer = load_tokenizer(files, transformers.PreTrainedTokenizerFast)
    with refusing(place(files), MEND):
        return kind(
            image_processor=image_processor,
            tokenizer=tokenizer,
            image_token=files.processor.get("image_token") or "<image>",
            chat_template=files.template,
            **expected | stored,
        )
