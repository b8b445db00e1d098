"""The tiny LLaVA-NeXT: the tiny LLaVA with the grids of tiles that are published."""

from collections.abc import Iterable, Mapping
from typing import Any

import transformers

from mmunlearner_jax.models.llava.tiny import (
    CHAT_TEMPLATE,
    VOCABULARY,
    matched,
    tower_of,
    trained,
)
from mmunlearner_jax.models.llava_next.model import LlavaNextConfig
from mmunlearner_jax.processing.lessons import Lesson

GRIDS = (1, 2), (2, 1), (2, 2), (3, 1), (1, 3)  # rows and columns of tiles


def make(
    lessons: Iterable[Lesson],
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    pixels: tuple[int, int],
) -> tuple[LlavaNextConfig, Any]:
    """Makes the config and the processor (see `architecture.Tiny`); `pixels` is not used."""
    return around(trained(lessons, VOCABULARY), CHAT_TEMPLATE, vision, text)


def around(
    tokenizer: Any, template: str, vision: Mapping[str, Any], text: Mapping[str, Any]
) -> tuple[LlavaNextConfig, Any]:
    """Makes the config and the processor around a tokenizer (see `architecture.Tiny`)."""
    tower = tower_of(vision)
    edge = tower.image_size
    pinpoints = tuple((rows * edge, columns * edge) for rows, columns in GRIDS)
    side = {"height": edge, "width": edge}
    pictures = transformers.LlavaNextImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_grid_pinpoints=[*map(list, pinpoints)],
        image_mean=[0.45] * 3,
        image_std=[0.22] * 3,
    )
    processor = transformers.LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=tower.patch_size,
        chat_template=template,
    )
    config = LlavaNextConfig(image_grid_pinpoints=pinpoints, **matched(processor, tower, text))
    return config, processor
