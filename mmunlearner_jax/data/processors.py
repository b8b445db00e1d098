"""What reads and writes a checkpoint's tokens and pictures, without torch."""

import operator
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image

from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.errors import InputError, listed, refusing, shown
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.processing.companions import (
    MEND,
    Companions,
    load_image_processor,
    load_tokenizer,
    read_companions,
)
from mmunlearner_jax.processing.pictures import AnySize, OneSize, Pictures

# Of a picture that any model here could take; more is a mistake, or fills the memory.
LARGEST_EDGE = 4096


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
        self.chat_template = tokenizer.chat_template

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
    load = _LOADERS[config.model_type]
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


def _llava(config, files, min_pixels, max_pixels, patch_budgets):
    if min_pixels or max_pixels or patch_budgets:
        raise InputError(
            "config.model.min_pixels, max_pixels, patch_budgets: LLaVA's pictures have one size;"
            " leave them 0, 0, ()"
        )
    own = {
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": config.feature_select,
        "num_additional_image_tokens": 1,  # CLIP's class token
    }
    said = {key: files.processor[key] for key in own if files.processor.get(key) is not None}
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
            **own | said,
        )
    pictures, tokens = OneSize(processor), config.image_tokens(0)
    shape = config.picture_arrays(0)["pixel_values"].shape[1:]
    for size in (60, 40), (40, 60):
        pixels, given = _read(pictures, size, place)
        if pixels.shape != shape:
            raise InputError(
                f"{files.pictures_file}: a picture of {size[0]} x {size[1]} becomes"
                f" {pixels.shape}, and the model takes {shape}; set size, crop_size and"
                " do_center_crop so that all have the model's size"
            )
        if given != tokens:
            raise InputError(
                f"{files.folder / 'processor_config.json'}: a picture has {given} image tokens,"
                f" and the model {tokens} features; leave out {', '.join(own)}, or give the"
                f" model's, {', '.join(map(str, own.values()))}"
            )
    return processor, pictures, tokens


def _qwen2_vl(config, files, min_pixels, max_pixels, patch_budgets):
    least, most = _pixels(files, min_pixels, max_pixels)
    vision = config.vision
    own = {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if any(files.pictures.get(key) not in (None, size) for key, size in own.items()):
        raise InputError(
            f"{files.folder}: {files.pictures_file.name} and config.json differ in patch_size,"
            " merge_size or temporal_patch_size; use the files of one checkpoint"
        )
    size = {"shortest_edge": least, "longest_edge": most}
    image_processor = load_image_processor(
        files, "Qwen2VLImageProcessor", size=size, min_pixels=None, max_pixels=None, **own
    )
    if not isinstance(image_processor, transformers.Qwen2VLImageProcessorPil):
        raise InputError(
            f"{files.pictures_file}: image_processor_type="
            f"{shown(files.pictures['image_processor_type'])} is not Qwen2-VL's; {MEND}"
        )
    kind = str(files.tokenizer.get("tokenizer_class") or "Qwen2Tokenizer")
    own_kind = kind.removesuffix("Fast") == "Qwen2Tokenizer"
    made = transformers.Qwen2Tokenizer if own_kind else transformers.PreTrainedTokenizerFast
    tokenizer = load_tokenizer(files, made)
    tokenizer.chat_template = files.template
    processor = Qwen2VLProcessor(image_processor, tokenizer)
    pictures = AnySize(image_processor, patch_budgets)
    side = vision.patch_size * vision.spatial_merge_size
    pixels, tokens = _read(pictures, (side + 5, side + 9), files.pictures_file)
    if len(pixels) != vision.in_channels:
        raise InputError(
            f"{files.folder}: a picture has {len(pixels)} channels, in_channels of config.json is"
            f" {vision.in_channels}; use the files of one checkpoint"
        )
    return processor, pictures, tokens


_LOADERS = {LlavaConfig.model_type: _llava, Qwen2VLConfig.model_type: _qwen2_vl}


def _pixels(files: Companions, least: int, most: int) -> tuple[int, int]:
    """Pixels of the smallest and the largest picture: given, or as any release wrote them."""
    stored = files.pictures
    with refusing(f"{files.pictures_file}: size", MEND):
        size = dict(stored.get("size") or transformers.Qwen2VLImageProcessorPil.size)
    found = []
    for given, old, new in ((least, "min", "shortest_edge"), (most, "max", "longest_edge")):
        old = f"{old}_pixels"
        values = (given or None, stored.get(old), size.get(new), size.get(old))
        pixels = next((value for value in values if value is not None), None)
        if type(pixels) is not int or pixels < 1:
            raise InputError(
                f"{files.pictures_file}: size={shown(size)} gives no {new} (or {old}) that is a"
                f" number of pixels; give both, or leave size out"
            )
        found.append(pixels)
    least, most = found
    if least > most:
        raise InputError(
            f"config.model.min_pixels: {least} (of the config, or of {files.folder}) is above"
            f" max_pixels, {most}"
        )
    if least > LARGEST_EDGE**2:
        raise InputError(
            f"config.model.min_pixels: {least} (of the config, or of {files.folder}) enlarges every"
            f" picture above {LARGEST_EDGE} x {LARGEST_EDGE}; give less"
        )
    return least, most


def _read(pictures: Pictures, size: tuple[int, int], place: Any) -> tuple[np.ndarray, int]:
    """What is made of a grey picture, width and height given."""
    with refusing(place, MEND), np.errstate(all="ignore"):
        pixels, tokens = pictures.read(Image.new("RGB", size, "grey"))
    if not np.isfinite(pixels).all():
        raise InputError(f"{place}: makes pixels that are no numbers (image_std?); {MEND}")
    return pixels, tokens


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
