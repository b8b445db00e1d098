"""The tiny LLaVA of the examples: its config, and a processor with a newly trained tokenizer."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mmunlearner_jax.models import layers
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.towers import CONFIGS
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.processing.lessons import Lesson, vocabulary

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
VOCABULARY = 1024  # most tokens of a tokenizer that is trained here

# llava-hf's template (`USER: <image>\n{q} ASSISTANT: {a} `). It also takes contents that are plain
# strings, besides lists of parts.
CHAT_TEMPLATE = inspect.cleandoc(
    """
    {%- for message in messages -%}
    {{- message['role'].upper() + ': ' -}}
    {%- if message['content'] is string -%}
    {{- message['content'] + ' ' -}}
    {%- else -%}
    {%- for part in message['content'] if part['type'] == 'image' -%}
    {{- '<image>\\n' -}}
    {%- endfor -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}
    {{- part['text'] + ' ' -}}
    {%- endfor -%}
    {%- endif -%}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
    {{- 'ASSISTANT:' -}}
    {%- endif -%}
    """
)


def make(
    lessons: Iterable[Lesson],
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    pixels: tuple[int, int],
) -> tuple[VisionLanguageConfig, Any]:
    """Makes the config and the processor (see `architecture.Tiny`); `pixels` is not used."""
    return around(trained(lessons, VOCABULARY), CHAT_TEMPLATE, vision, text)


def around(
    tokenizer: Any, template: str, vision: Mapping[str, Any], text: Mapping[str, Any]
) -> tuple[VisionLanguageConfig, Any]:
    """Makes the config and the processor around a tokenizer (see `architecture.Tiny`).

    `vision` may name another tower than CLIP by its `model_type`.
    """
    tower = tower_of(vision)
    processor = join(tokenizer, template, tower.image_size, tower.patch_size)
    return LlavaConfig(**matched(processor, tower, text)), processor


def tower_of(vision: Mapping[str, Any]) -> Any:
    """Returns the config of a vision tower from its fields and its `model_type`; CLIP without."""
    sizes = {"model_type": ClipConfig.model_type, **vision}
    kind = layers.choose(CONFIGS, "config.prepare.vision.model_type", sizes.pop("model_type"))
    return kind(**sizes)


def matched(processor: Any, tower: Any, text: Mapping[str, Any]) -> dict[str, Any]:
    """Fits a processor to a vision tower, and returns the fields of a model's config."""
    processor.num_additional_image_tokens = tower.class_tokens
    select = processor.vision_feature_select_strategy = "default" if tower.class_tokens else "full"
    return dict(
        vision=tower,
        feature_select=select,
        text=LlamaConfig(**text, **vocabulary(processor.tokenizer)),
        image_token_id=processor.image_token_id,
    )


def build_processor(
    samples: Iterable[Lesson],
    *,
    vocab_size: int = VOCABULARY,
    image_size: int = 64,
    patch_size: int = 16,
) -> "transformers.LlavaProcessor":  # a string, because the name's lookup would import torch
    """Trains a tokenizer and joins it with an image processor.

    `save_pretrained` of the result writes all that `AutoProcessor.from_pretrained` needs.

    Args:
        samples: The samples that the model will learn. Every word, with its leading blank, gets a
            token of its own as long as the vocabulary has room.
        vocab_size: Maximum number of tokens, with the 256 bytes and four special tokens.
        image_size: Height and width that pictures are resized to, in pixels.
        patch_size: Height and width of a patch, in pixels; a picture takes
            (image_size / patch_size)**2 tokens.
    """
    return join(trained(samples, vocab_size), CHAT_TEMPLATE, image_size, patch_size)


def join(
    tokenizer: Any, template: str, image_size: int, patch_size: int
) -> "transformers.LlavaProcessor":  # a string, because the name's lookup would import torch
    """Joins a tokenizer with an image processor.

    Args:
        tokenizer: A tokenizer of transformers with a token `<image>`.
        template: The chat template.
        image_size: As in `build_processor`.
        patch_size: As in `build_processor`.
    """
    side = {"height": image_size, "width": image_size}
    pictures = transformers.CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_mean=[0.45] * 3,
        image_std=[0.22] * 3,
    )
    return transformers.LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=patch_size,
        # The class token counts here; the strategy "default" then subtracts it.
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=template,
    )


def trained(samples: Iterable[Lesson], vocab_size: int) -> Any:
    """Trains a tokenizer; see `build_processor`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Several photographs of a person repeat the same conversation; the set holds each only once.
    conversations = {
        f"USER: {picture}{sample.question} ASSISTANT: {sample.answer}"
        for sample in samples
        for picture in [f"{IMAGE}\n" if sample.image else ""]
    }
    bpe.train_from_iterator(sorted(conversations), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[IMAGE],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
