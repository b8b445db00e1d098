"""LLaVA's processor: the one of transformers, checked against the model."""

from typing import Any

import transformers

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.processing.companions import (
    LARGEST_EDGE,
    MEND,
    Companions,
    load_image_processor,
    load_tokenizer,
    try_picture,
)
from mmunlearner_jax.processing.pictures import OneSize, Pictures


def load(
    config: LlavaConfig,
    files: Companions,
    min_pixels: int,
    max_pixels: int,
    patch_budgets: tuple[int, ...],
) -> tuple[Any, Pictures, int]:
    """Makes the processor (see `architecture.Inputs`); all pictures have one size."""
    if min_pixels or max_pixels or patch_budgets:
        raise InputError(
            "config.model.min_pixels, max_pixels, patch_budgets: all pictures of LLaVA have one"
            " size; leave these fields 0, 0 and ()"
        )
    expected = {
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": config.feature_select,
        "num_additional_image_tokens": 1,  # CLIP's class token
    }
    stored = {k: files.processor[k] for k in expected if files.processor.get(k) is not None}
    image_processor = load_image_processor(files, "LlavaImageProcessor")
    with refusing(f"{files.pictures_file}: size, crop_size", MEND):
        sizes = [dict(size or {}) for size in (image_processor.size, image_processor.crop_size)]
        edges = [edge for size in sizes for edge in size.values() if edge]
        if max([*edges, config.vision.image_size]) > LARGEST_EDGE:
            raise ValueError(f"{shown(edges)} is above {LARGEST_EDGE}")
    tokenizer = load_tokenizer(files, transformers.PreTrainedTokenizerFast)
    place = f"{files.folder}: processor_config.json or preprocessor_config.json"
    with refusing(place, MEND):
        processor = transformers.LlavaProcessor(
            image_processor=image_processor,
            tokenizer=tokenizer,
            image_token=files.processor.get("image_token") or "<image>",
            chat_template=files.template,
            **expected | stored,
        )
    pictures, tokens = OneSize(processor), config.image_tokens(0)
    shape = config.picture_arrays(0)["pixel_values"].shape[1:]
    for size in (60, 40), (40, 60):
        pixels, made = try_picture(pictures, size, place)
        if pixels.shape != shape:
            raise InputError(
                f"{files.pictures_file}: a picture of {size[0]} x {size[1]} pixels becomes"
                f" {pixels.shape}, but the model takes {shape}; set size, crop_size and"
                " do_center_crop so that every picture gets the model's size"
            )
        if made != tokens:
            raise InputError(
                f"{files.folder / 'processor_config.json'}: a picture becomes {made} image tokens,"
                f" but the model makes {tokens} features; remove {', '.join(expected)}, or set them"
                f" to {', '.join(map(str, expected.values()))}"
            )
    return processor, pictures, tokens
