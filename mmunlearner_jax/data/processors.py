"""Processors of checkpoints (tokenizer, chat template, image processor), without torch."""

import operator
from pathlib import Path
from typing import Any

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.errors import InputError, listed
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.processing.companions import MEND, Companions, read_companions
from mmunlearner_jax.processing.pictures import Pictures, Sizes


def load_processor(config: VisionLanguageConfig, folder: str, **sizes: Any) -> tuple[Any, Pictures]:
    """Loads a model's processor and tries it on a question with a picture and one without.

    Fields that the processor's files lack are taken from the model's config; fields that contradict
    it are refused. A tokenizer without a padding token pads with its end-of-text token; padding is
    masked.

    Args:
        config: Config of the model.
        folder: Folder of the checkpoint.
        **sizes: Fields of `Sizes`, if the model takes pictures of any size, or clips.

    Returns:
        The processor and its `Pictures`: the first two arguments of `Encoder`.

    Raises:
        InputError: A file is missing or damaged, or the files or the sizes do not fit the model.
    """
    files = read_companions(Path(folder))
    load = ARCHITECTURES[config.model_type].inputs.load
    processor, pictures, tokens = load(config, files, Sizes(**sizes))
    if processor.image_token_id != config.image_token_id:
        raise InputError(
            f"{folder}: the image token is {processor.image_token_id} in the tokenizer,"
            f" {config.image_token_id} in config.json; use the files of one checkpoint"
        )
    _complete(processor.tokenizer, files, config)
    tokens = min(tokens, pictures.most_tokens)  # other pictures may be smaller
    _try(Encoder(processor, pictures), int(tokens), files, config)
    return processor, pictures


def _complete(tokenizer: Any, files: Companions, config: VisionLanguageConfig) -> None:
    """Sets missing end and padding tokens, and refuses token ids that have no embedding."""
    if tokenizer.eos_token is None:
        end = files.generation.get("eos_token_id", config.text.eos_token_id)
        end = end[0] if isinstance(end, list | tuple) and end else end
        if type(end) is not int or not 0 <= end < len(tokenizer):
            raise InputError(
                f"{files.folder / 'tokenizer_config.json'}: has no eos_token, and"
                " generation_config.json and config.json give no eos_token_id; add it"
            )
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    size = config.text.vocab_size
    if beyond := [token for token, number in tokenizer.get_vocab().items() if number >= size]:
        raise InputError(
            f"{files.folder / 'tokenizer.json'}: has {listed(beyond)}, but the model has only"
            f" {size:,} embeddings (vocab_size of config.json); use the model's own tokenizer, or"
            " resize its embeddings with transformers"
        )


def _try(encoder: Encoder, tokens: int, files: Companions, config: VisionLanguageConfig) -> None:
    """Encodes a sample as the stages do, so that a bad template or tokenizer raises here."""
    # If the prompt ends with the answer's blank, a word that forms one token with its blank
    # reveals it.
    vocabulary = sorted(encoder.tokenizer.get_vocab().items(), key=operator.itemgetter(1))
    blanks = (token for token, _ in vocabulary if token[:1] in ("\u0120", "\u2581"))
    word = next((token[1:] for token in blanks if token[1:].isalpha()), "Kim")
    question, answer = "Who is this?", f"{word} Birch."
    for spans in ([(encoder.processor.image_token, tokens)], []):
        try:
            ids = encoder.tokens(question, answer, *spans).input_ids
            prompt = encoder.prompt(question, len(spans))
        except InputError as error:
            raise InputError(f"{files.template_file}: {error}") from None
        if question not in prompt:
            raise InputError(
                f"{files.template_file}: chat template: renders the question {question!r} as"
                f" {prompt!r}; {MEND}"
            )
        if ids.max() >= config.text.vocab_size:
            raise InputError(
                f"{files.folder / 'tokenizer.json'}: its post_processor adds token {ids.max()}, but"
                f" the model has only {config.text.vocab_size:,} embeddings; {MEND}"
            )
