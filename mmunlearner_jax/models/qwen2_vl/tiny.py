"""The tiny Qwen2-VL of the examples: config, and processor with a newly trained tokenizer."""

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import transformers

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl.inputs import Qwen2VLProcessor
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig, QwenVLConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.processing.lessons import Lesson, vocabulary

# Qwen2-VL's chat template, but without videos and without numbering the pictures.
CHATML = inspect.cleandoc(
    """
    {%- for message in messages -%}
    {%- if loop.first and message['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
    {%- endif -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['content'] is string -%}
    {{- message['content'] -}}
    {%- else -%}
    {%- for part in message['content'] -%}
    {%- if part['type'] == 'image' -%}
    {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
    {%- elif part['type'] == 'text' -%}
    {{- part['text'] -}}
    {%- endif -%}
    {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- endif -%}
    """
)
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
CHATML_TOKENS = (
    *("<|im_start|>", END_OF_TURN, "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


def made(
    kind: type[QwenVLConfig],
    lessons: Iterable[Lesson],
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    pixels: tuple[int, int],
) -> tuple[VisionLanguageConfig, Any]:
    """Makes a config of a class, and the processor; see `architecture.Tiny`."""
    vision_kind, text_kind = kind.parts
    processor = build_chatml_processor(
        lessons,
        patch_size=vision["patch_size"],
        min_pixels=pixels[0],
        max_pixels=pixels[1],
    )
    tokens = processor.tokenizer.get_vocab()
    config = kind(
        vision=vision_kind(**vision, **{vision_kind.names[1]: text["hidden_size"]}),
        text=text_kind(**text, **vocabulary(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    return config, processor


def refuse(
    kind: type[QwenVLConfig],
    tokenizer: Any,
    template: str,
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
) -> NoReturn:
    """Refuses the decoder (see `architecture.Tiny.around`): Qwen's has biases and M-RoPE."""
    raise InputError(
        f"config.prepare.architecture is {kind.model_type!r}, which takes no decoder of Llama's"
        " kind: give 'llava', or leave config.prepare.language empty"
    )


make = functools.partial(made, Qwen2VLConfig)
around = functools.partial(refuse, Qwen2VLConfig)


def build_chatml_processor(
    samples: Iterable[Lesson],
    *,
    vocab_size: int = 1280,
    patch_size: int = 14,
    min_pixels: int = 56 * 56,
    max_pixels: int = 112 * 112,
) -> Qwen2VLProcessor:
    """Trains a tokenizer of Qwen2's kind and joins it with Qwen2-VL's image processor.

    Args:
        samples: The samples that the model will learn. Every word, with its leading blank, gets a
            token of its own as long as the vocabulary has room.
        vocab_size: Maximum number of tokens, with the 256 bytes and seven special tokens.
        patch_size: Height and width of a patch, in pixels; four patches become one token.
        min_pixels: Smaller pictures are enlarged to this number of pixels.
        max_pixels: Larger pictures are shrunk to this number of pixels.
    """
    turns = {"system\nYou are a helpful assistant."}
    for sample in samples:
        turns |= {f"user\n{sample.question}", f"assistant\n{sample.answer}"}
    tokenizer = transformers.Qwen2Tokenizer(pad_token=END_OF_TEXT, eos_token=END_OF_TURN)
    tokenizer = tokenizer.train_new_from_iterator(
        sorted(turns),
        vocab_size,
        new_special_tokens=list(CHATML_TOKENS),
        show_progress=False,
    )
    tokenizer.padding_side, tokenizer.chat_template = "right", CHATML
    pictures = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch_size,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        image_mean=[0.45] * 3,
        image_std=[0.22] * 3,
    )
    return Qwen2VLProcessor(pictures, tokenizer)
