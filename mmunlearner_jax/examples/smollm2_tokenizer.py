"""SmolLM2's tokenizer, rebuilt from the vocabulary in its GGUF file, and its chat template."""

import inspect
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.gguf_llama import GgufLlama

IMAGE, PAD = "<image>", "<pad>"
CONTROL = 3  # the type of special tokens in `tokenizer.ggml.token_type`

# SmolLM2's own template, but without its system prompt, and for contents that are lists of parts.
# Transformers renders that prompt ("You are a helpful AI assistant named SmolLM, ..."): its 21
# tokens double a short question and change little of what is known. Of 42 countries, 39 capitals
# follow "The capital of X is" with and without it, and 40 countries "Y is the capital of".
CHAT_TEMPLATE = inspect.cleandoc(
    """
    {%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['content'] is string -%}
    {{- message['content'] -}}
    {%- else -%}
    {%- for part in message['content'] if part['type'] == 'image' -%}
    {{- '<image>' -}}
    {%- endfor -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}
    {{- part['text'] -}}
    {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- endif -%}
    """
)


def build_tokenizer(file: GgufLlama) -> Any:
    """Rebuilds the tokenizer, and adds a token for pictures and one for padding.

    Args:
        file: The GGUF file; its tokens keep their ids.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        InputError: The file's tokenizer is of another kind.
    """
    for key, wanted in (("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")):
        if (kind := file.value(key)) != wanted:
            raise InputError(f"{file.path}: {key}={kind!r}: give a file with {wanted!r}")
    tokens = file.value("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in file.value("tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    types = file.value("tokenizer.ggml.token_type")
    bpe.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == CONTROL
        ]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tokens[file.value("tokenizer.ggml.bos_token_id")],
        eos_token=tokens[file.value("tokenizer.ggml.eos_token_id")],
        unk_token=tokens[file.value("tokenizer.ggml.unknown_token_id")],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    # The file pads with the token that ends a turn; an own token keeps the two apart.
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE], "pad_token": PAD})
    return tokenizer
