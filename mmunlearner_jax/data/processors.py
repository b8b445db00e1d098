"""What reads and writes a checkpoint's tokens and pictures, without torch."""

from pathlib import Path
from typing import Any

import transformers

from mmunlearner_jax.data.pictures import AnySize, OneSize, Pictures
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig


class Qwen2VLProcessor:
    """`Qwen2VLProcessor` of transformers without its videos, which need torchvision.

    Videos are not supported. What it saves transformers' own loads.

    Args:
        image_processor: `Qwen2VLImageProcessorPil`.
        tokenizer: of transformers, with a chat template.

    Raises:
        InputError: the tokenizer has no chat template, or no token for pictures.
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
                f"{tokenizer.name_or_path}: the tokenizer has no {self.image_token}; use that of a"
                " Qwen2-VL checkpoint"
            )
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.apply_chat_template = tokenizer.apply_chat_template

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files of tokenizer, chat template and image processor."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def load_processor(
    config: VisionLanguageConfig,
    folder: str,
    *,
    min_pixels: int = 0,
    max_pixels: int = 0,
    patch_budgets: tuple[int, ...] = (),
) -> tuple[Any, Pictures]:
    """Loads what belongs to a model.

    Args:
        config: the model's.
        folder: of the checkpoint.
        min_pixels: smaller pictures are enlarged, where the model takes any size; 0: the
            checkpoint's.
        max_pixels: larger ones are shrunk; 0: the checkpoint's.
        patch_budgets: see `AnySize`.

    Returns:
        The processor, and what it makes of pictures: the first two arguments of `Encoder`.

    Raises:
        InputError: the folder's files or the sizes are not this model's.
    """
    load = _LOADERS[config.model_type]
    processor, pictures = load(config, folder, min_pixels, max_pixels, patch_budgets)
    if processor.image_token_id != config.image_token_id:
        raise InputError(
            f"{folder}: a picture's token is {processor.image_token_id} in the tokenizer,"
            f" {config.image_token_id} in config.json; use the files of one checkpoint"
        )
    return processor, pictures


def _llava(config, folder, min_pixels, max_pixels, patch_budgets):
    if min_pixels or max_pixels or patch_budgets:
        raise InputError(
            "config.model.min_pixels, max_pixels, patch_budgets: LLaVA's pictures have one size;"
            " leave them 0, 0, ()"
        )
    processor = transformers.AutoProcessor.from_pretrained(folder)
    return processor, OneSize(processor)


def _qwen2_vl(config, folder, min_pixels, max_pixels, patch_budgets):
    sizes = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    pictures: Any = transformers.Qwen2VLImageProcessorPil.from_pretrained(
        folder, **{key: size for key, size in sizes.items() if size}
    )
    least, most = pictures.size.shortest_edge, pictures.size.longest_edge
    if least > most:
        raise InputError(
            f"config.model.min_pixels: {least} (of the config, or of {folder}) is above max_pixels,"
            f" {most}"
        )
    cut = pictures.patch_size, pictures.merge_size, pictures.temporal_patch_size
    vision = config.vision
    if cut != (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size):
        raise InputError(
            f"{folder}: preprocessor_config.json and config.json differ in patch_size, merge_size"
            " or temporal_patch_size; use the files of one checkpoint"
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return Qwen2VLProcessor(pictures, tokenizer), AnySize(pictures, patch_budgets)


_LOADERS = {LlavaConfig.model_type: _llava, Qwen2VLConfig.model_type: _qwen2_vl}
