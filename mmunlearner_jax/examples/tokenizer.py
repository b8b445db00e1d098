"""Processors for models trained from nothing: byte-level BPE, pictures, the model's template."""

import inspect
from collections.abc import Iterable

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mmunlearner_jax.data.processors import Qwen2VLProcessor
from mmunlearner_jax.data.samples import Sample

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"

# llava-hf's template (`USER: <image>\n{q} ASSISTANT: {a} `), for contents that are lists of parts,
# as its own takes, or plain strings.
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

# Qwen2-VL's, without videos and without numbers of pictures.
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


def build_processor(
    samples: Iterable[Sample], *, vocab_size: int = 1024, image_size: int = 64, patch_size: int = 16
) -> "transformers.LlavaProcessor":  # a name of transformers that is looked up loads torch
    """Trains a tokenizer and joins it with an image processor.

    `save_pretrained` of the result writes all that `AutoProcessor.from_pretrained` needs.

    Args:
        samples: What the model will be taught. Every word gets a token of its own, with its leading
            blank, as far as the vocabulary lasts.
        vocab_size: At most so many tokens, the 256 bytes and four special tokens included.
        image_size: Height and width that pictures are squeezed to.
        patch_size: Of the vision encoder; a picture takes (image_size / patch_size)**2 tokens.

    Returns:
        A LlavaProcessor.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A person's photographs repeat the same conversations: each counts once.
    conversations = {
        f"USER: {picture}{sample.question} ASSISTANT: {sample.answer}"
        for sample in samples
        for picture in [f"{IMAGE}\n" if sample.image else ""]
    }
    bpe.train_from_iterator(sorted(conversations), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[IMAGE],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
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
        # The class token is counted, and dropped again by the selection "default".
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
    )


def build_chatml_processor(
    samples: Iterable[Sample],
    *,
    vocab_size: int = 1280,
    patch_size: int = 14,
    min_pixels: int = 56 * 56,
    max_pixels: int = 112 * 112,
) -> Qwen2VLProcessor:
    """Trains a tokenizer of Qwen2's kind and joins it with Qwen2-VL's image processor.

    Args:
        samples: What the model will be taught. Every word gets a token of its own, with its leading
            blank, as far as the vocabulary lasts.
        vocab_size: At most so many tokens, the 256 bytes and seven special tokens included.
        patch_size: Of the vision encoder; four patches become one token.
        min_pixels: Smaller pictures are enlarged.
        max_pixels: Larger ones are shrunk.
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
