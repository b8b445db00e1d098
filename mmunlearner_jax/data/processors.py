"""What reads and writes a checkpoint's tokens and pictures, without torch."""

from pathlib import Path
from typing import Any

import transformers

from mmunlearner_jax.data.pictures import AnySize, OneSize, Pictures
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig


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
    model_type: str,
    folder: str,
    *,
    min_pixels: int = 0,
    max_pixels: int = 0,
    patch_budgets: tuple[int, ...] = (),
) -> tuple[Any, Pictures]:
    """Loads what belongs to a model.

    Args:
        model_type: of its `config.json`.
        folder: of the checkpoint.
        min_pixels: smaller pictures are enlarged, where the model takes any size; 0: the
            checkpoint's.
        max_pixels: larger ones are shrunk; 0: the checkpoint's.
        patch_budgets: see `AnySize`.

    Returns:
        The processor, and what it makes of pictures: the first two arguments of `Encoder`.

    Raises:
        InputError: the folder's files or the sizes are no such model's.
    """
    return _LOADERS[model_type](folder, min_pixels, max_pixels, patch_budgets)


def _llava(folder, min_pixels, max_pixels, patch_budgets):
    if min_pixels or max_pixels or patch_budgets:
        raise InputError(
            "config.model.min_pixels, max_pixels, patch_budgets: LLaVA's pictures have one size;"
            " leave them 0, 0, ()"
        )
    processor = transformers.AutoProcessor.from_pretrained(folder)
    return processor, OneSize(processor)


def _qwen2_vl(folder, min_pixels, max_pixels, patch_budgets):
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
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return Qwen2VLProcessor(pictures, tokenizer), AnySize(pictures, patch_budgets)


_LOADERS = {LlavaConfig.model_type: _llava, Qwen2VLConfig.model_type: _qwen2_vl}
