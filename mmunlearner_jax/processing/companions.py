"""Reads the small files beside a checkpoint's weights, with limits; their code is never run."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers
from PIL import Image

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import read_bytes, read_json
from mmunlearner_jax.processing.confined import try_tokenizer
from mmunlearner_jax.processing.pictures import Picture, Pictures

# The longest edge of a picture, in pixels. A larger one is a mistake, or fills the memory.
LARGEST_EDGE = 4096

MEND = "use the file of the checkpoint this one was made from"

# The keys of `auto_map`, and for each the field that names the class of transformers.
_CODE = {
    "AutoProcessor": "processor_class",
    "AutoImageProcessor": "image_processor_type",
    "AutoFeatureExtractor": "feature_extractor_type",
    "AutoTokenizer": "tokenizer_class",
}


@dataclasses.dataclass(frozen=True)
class Companions:
    """Contents of the small files of a checkpoint.

    Attributes:
        folder: Folder of the checkpoint.
        tokenizer: Contents of tokenizer_config.json.
        processor: Contents of processor_config.json; {} where it is missing, as in old checkpoints.
        pictures: Options of the image processor.
        pictures_file: The file that holds `pictures`.
        generation: Contents of generation_config.json; {} where it is missing.
        template: The chat template.
        template_file: The file that holds `template`.
    """

    folder: Path
    tokenizer: Mapping[str, Any]
    processor: Mapping[str, Any]
    pictures: Mapping[str, Any]
    pictures_file: Path
    generation: Mapping[str, Any]
    template: str
    template_file: Path


def read_companions(folder: Path) -> Companions:
    """Reads the files of a checkpoint that are neither weights nor config.json nor vocabulary.

    Args:
        folder: Folder of the checkpoint.

    Raises:
        InputError: A file is broken or needs the checkpoint's own code, or there is no chat
            template or no options of an image processor.
    """
    names = ("processor", "preprocessor", "tokenizer", "generation")
    paths = [folder / f"{name}_config.json" for name in names]
    stored = {path: read_json(path, mend=MEND) for path in paths if os.path.lexists(path)}
    processor, pictures, tokenizer, generation = (stored.get(path, {}) for path in paths)
    file = paths[1]
    if processor.get("image_processor") is not None:  # written by transformers 5
        file, pictures = paths[0], processor["image_processor"]
    if not isinstance(pictures, dict) or not pictures:
        raise InputError(f"{file}: has no options of an image processor; {MEND}")
    _refuse_code([*stored.items(), (file, pictures)])
    template, template_file = _template(folder, tokenizer, processor)
    return Companions(
        folder, tokenizer, processor, pictures, file, generation, template, template_file
    )


def load_tokenizer(files: Companions, made: Any) -> Any:
    """Makes a tokenizer from a checkpoint's files.

    The library reads copies of the files that it needs, in a folder of their own. So it finds
    nothing else there: no code, no pipe, and no name of another file or repository to open.

    Args:
        files: The small files of the checkpoint.
        made: A class of transformers that wraps a tokenizer of the tokenizers library.

    Raises:
        InputError: A file is missing or broken.
    """
    file = files.folder / "tokenizer.json"
    names = ["tokenizer.json", "special_tokens_map.json", "added_tokens.json"]
    if not os.path.lexists(file):  # old checkpoints with byte-level vocabularies lack it
        names += ["vocab.json", "merges.txt"]
    present = [name for name in names if os.path.lexists(files.folder / name)]
    if not {"tokenizer.json", "vocab.json"}.intersection(present):
        raise InputError(
            f"{file}: is missing; save it with transformers.AutoTokenizer, which makes it from the"
            " other files of the vocabulary"
        )
    dropped = ("auto_map", "chat_template", "init_inputs", "vocab", "merges")
    options = {
        key: value
        for key, value in files.tokenizer.items()
        if key not in dropped and not key.endswith(("_file", "_files"))
    }
    with tempfile.TemporaryDirectory() as copies:
        for name in present:
            source = files.folder / name
            if name.endswith(".json") and source != file:
                read_json(source, mend=MEND)  # the library's errors name `file` only
            Path(copies, name).write_bytes(read_bytes(source, mend=MEND))
        if file.name in present:
            try_tokenizer(Path(copies, file.name), str(file), MEND)
        Path(copies, "tokenizer_config.json").write_text(json.dumps(options))
        with refusing(f"{file}, tokenizer_config.json", MEND):
            tokenizer = made.from_pretrained(copies, local_files_only=True, trust_remote_code=False)
    tokenizer.name_or_path = str(files.folder)
    return tokenizer


def load_image_processor(files: Companions, default: str, **options: Any) -> Any:
    """Makes an image processor from a checkpoint's files.

    Args:
        files: The small files of the checkpoint.
        default: Name of the class if the files name none.
        **options: Options that replace those in the files.

    Raises:
        InputError: Transformers has no such class that uses PIL, or the class refuses the options.
    """
    stored = {k: v for k, v in files.pictures.items() if k != "auto_map"} | options
    old = stored.pop("feature_extractor_type", None)  # before transformers 4.25
    name = str(stored.get("image_processor_type") or old or default)
    name = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    made = getattr(transformers, f"{name.removesuffix('Pil')}Pil", None)
    if made is None:
        raise InputError(
            f"{files.pictures_file}: image_processor_type={shown(name)} is no image processor of"
            f" transformers that uses PIL; {MEND}"
        )
    with refusing(files.pictures_file, MEND):
        return made.from_dict(stored)


def try_picture(pictures: Pictures, size: tuple[int, int], place: Any) -> tuple[Picture, int]:
    """Reads a grey picture to check an image processor's options.

    Args:
        pictures: Pictures that use the image processor.
        size: Width and height, in pixels.
        place: The file or folder that the error names.

    Returns:
        The resized picture and the number of its tokens.

    Raises:
        InputError: The image processor fails, or returns numbers that are not finite.
    """
    with refusing(place, MEND), np.errstate(all="ignore"):
        picture, tokens = pictures.read(Image.new("RGB", size, "grey"))
    if not all(np.isfinite(image).all() for image in jax.tree.leaves(picture)):
        raise InputError(f"{place}: makes pixels that are not finite (image_std?); {MEND}")
    return picture, tokens


def _refuse_code(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Refuses a checkpoint's own code, unless the files name a class of transformers instead."""
    for file, stored in files:
        with refusing(f"{file}: auto_map", MEND):
            code = stored.get("auto_map") or {}
            code = {"AutoTokenizer": code} if isinstance(code, list) else code
            for auto in filter(code.__contains__, _CODE):
                named = (other.get(_CODE[auto]) for _, other in files)
                name = next((name for name in named if name is not None), None)
                if not hasattr(transformers, str(name)):
                    raise InputError(
                        f"{file}: auto_map names the checkpoint's own code for"
                        f" {_CODE[auto]}={shown(name)}, which is no class of transformers; such"
                        " code is never run: use a checkpoint that needs none"
                    )


def _template(
    folder: Path, tokenizer: Mapping[str, Any], processor: Mapping[str, Any]
) -> tuple[str, Path]:
    """Returns the chat template and its file; of several files, the one that transformers uses."""
    old, new = folder / "chat_template.json", folder / "chat_template.jinja"
    places = [(folder / "processor_config.json", processor.get("chat_template"))]
    if os.path.lexists(old):
        places.append((old, read_json(old, mend=MEND).get("chat_template")))
    if os.path.lexists(new):
        with refusing(new, MEND):
            places.append((new, read_bytes(new, mend=MEND, most=2**20).decode()))
    places.append((folder / "tokenizer_config.json", tokenizer.get("chat_template")))
    file, stored = next(
        ((file, stored) for file, stored in places if stored is not None), (new, None)
    )
    if stored is None:
        raise InputError(f"{new}: is missing, and no other file has a chat template; {MEND}")
    with refusing(f"{file}: chat_template", MEND):
        if isinstance(stored, list):
            stored = {named["name"]: named["template"] for named in stored}
        if isinstance(stored, dict):
            stored = stored["default"]
        if not isinstance(stored, str):
            raise TypeError(f"{type(stored).__name__} is not a string")
    return stored, file
