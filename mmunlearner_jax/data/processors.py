"""What reads and writes a checkpoint's tokens and pictures, without torch."""

import operator
from pathlib import Path
from typing import Any

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.errors import InputError, listed
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.processing.companions import MEND, Companions, read_companions
from mmunlearner_jax.processing.pictures import Pictures


def load_processor(
    config: VisionLanguageConfig,
    folder: str,
    *,
    min_pixels: int = 0,
    max_pixels: int = 0,
    patch_budgets: tuple[int, ...] = (),
) -> tuple[Any, Pictures]:
    """Loads what belongs to a model, and tries it: a question with a picture and one without.

    What the files leave out is the model's; what they say otherwise than the model is refused. A
    tokenizer without a token for padding pads with its end of text, which is never looked at.

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
        InputError: a file is missing or broken, or the files or the sizes are not this model's.
    """
    files = read_companions(Path(folder))
    load = ARCHITECTURES[config.model_type].inputs.load
    processor, pictures, tokens = load(config, files, min_pixels, max_pixels, patch_budgets)
    if processor.image_token_id != config.image_token_id:
        raise InputError(
            f"{folder}: a picture's token is {processor.image_token_id} in the tokenizer,"
            f" {config.image_token_id} in config.json; use the files of one checkpoint"
        )
    _complete(processor.tokenizer, files, config)
    tokens = min(tokens, pictures.most_tokens)  # other pictures may be smaller
    _try(Encoder(processor, pictures), int(tokens), files, config)
    return processor, pictures


def _complete(tokenizer: Any, files: Companions, config: VisionLanguageConfig) -> None:
    """Sets the tokens for end and padding where there are none; refuses ids without embeddings."""
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
            f"{files.folder / 'tokenizer.json'}: has {listed(beyond)}, and the model only"
            f" {size:,} embeddings (vocab_size of config.json); use the model's own tokenizer, or"
            " resize its embeddings by transformers"
        )


def _try(encoder: Encoder, tokens: int, files: Companions, config: VisionLanguageConfig) -> None:
    """Asks as every stage will: what is wrong with template and tokenizer shows here."""
    # A word that is one token with its blank shows whether the prompt takes the blank from it.
    vocabulary = sorted(encoder.tokenizer.get_vocab().items(), key=operator.itemgetter(1))
    blanks = (token for token, _ in vocabulary if token[:1] in ("\u0120", "\u2581"))
    word = next((token[1:] for token in blanks if token[1:].isalpha()), "Kim")
    question, answer = "Who is this?", f"{word} Birch."
    for image_tokens in (tokens, 0):
        try:
            ids = encoder.tokens(question, answer, image_tokens).input_ids
            asked = encoder.prompt(question, int(image_tokens > 0))
        except InputError as error:
            raise InputError(f"{files.template_file}: {error}") from None
        if question not in asked:
            raise InputError(
                f"{files.template_file}: chat template: makes {asked!r} of {question!r}; {MEND}"
            )
        if ids.max() >= config.text.vocab_size:
            raise InputError(
                f"{files.folder / 'tokenizer.json'}: its post_processor sets token {ids.max()}, and"
                f" the model has {config.text.vocab_size:,} embeddings; {MEND}"
            )
