"""The record that describes an architecture to the rest of the package.

Everything that depends on the architecture is an attribute of its record, which stands in the
architecture's folder. No other module asks which architecture a model has.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.weights.table import Table

if TYPE_CHECKING:  # these import transformers
    from mmunlearner_jax.processing.companions import Companions
    from mmunlearner_jax.processing.lessons import Lesson
    from mmunlearner_jax.processing.pictures import Pictures, Sizes


class Inputs(Protocol):
    """The module `inputs.py` of an architecture's folder."""

    def load(self, config: Any, files: "Companions", sizes: "Sizes") -> "tuple[Any, Pictures, int]":
        """Makes the processor of a checkpoint and checks it against the model.

        Args:
            config: The model's config, an instance of the architecture's config class.
            files: The small files of the checkpoint.
            sizes: The options of pictures of any size and of clips.

        Returns:
            The processor, with the attributes `tokenizer`, `image_token`, `image_token_id` and
            `chat_template`; the `Pictures`, which turn pictures into arrays; and the number of
            tokens of a small test picture.

        Raises:
            InputError: The files do not fit the model, or the model cannot take the options.
        """
        ...


class Tiny(Protocol):
    """The module `tiny.py` of an architecture's folder."""

    def make(
        self,
        lessons: "Iterable[Lesson]",
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        pixels: tuple[int, int],
    ) -> tuple[VisionLanguageConfig, Any]:
        """Makes the config of a small untrained model and a processor that fits it.

        Args:
            lessons: The texts that the tokenizer is trained on.
            vision: Fields of the vision tower's config class.
            text: Fields of the decoder's config class, without those of the vocabulary.
            pixels: Number of pixels of the smallest and of the largest picture; not used where all
                pictures of the model have one size.

        Returns:
            The model's config, and the processor, which has `save_pretrained`.
        """
        ...

    def around(
        self, tokenizer: Any, template: str, vision: Mapping[str, Any], text: Mapping[str, Any]
    ) -> tuple[VisionLanguageConfig, Any]:
        """Makes the config and the processor of a model around a pretrained Llama decoder.

        Args:
            tokenizer: The decoder's tokenizer, of transformers, with a token `<image>`.
            template: The chat template.
            vision: Fields of the vision tower's config class.
            text: Fields of `LlamaConfig`, without those of the vocabulary.

        Returns:
            As `make`.

        Raises:
            InputError: The architecture takes no decoder of Llama's kind.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that the package needs to know about an architecture.

    Attributes:
        folder: The dotted name of its package, which has the modules `inputs` and `tiny`.
        config: Its config class.
        from_hf: Turns the contents of a `config.json` into a config; `read_config` calls it.
        to_hf: Turns a config into the contents of a `config.json` that transformers 4 and 5 read.
        table: Names and orientations of its tensors, and its module groups.
        sizes: Functions that make the configs of the published checkpoints, by the value of
            `config.model.size`.
        maskable: Regular expression that finds the Hugging Face names of the weights that have a
            mask; `config.mask.cover` replaces it.
        published_in_template: Whether MLLMU-Bench's published code puts its prompts into this
            model's chat template; False: the published prompt is the whole text.
        lookalikes: Model types that are easily taken for this one, by the `model_type` of their
            `config.json`; the value says what this package lacks for them.
    """

    folder: str
    config: type[VisionLanguageConfig]
    from_hf: Callable[[Mapping[str, Any]], VisionLanguageConfig]
    to_hf: Callable[[Any], dict[str, Any]]
    table: Table
    sizes: Mapping[str, Callable[[], VisionLanguageConfig]]
    maskable: str
    published_in_template: bool
    lookalikes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The `model_type` of its `config.json`."""
        return self.config.model_type

    @property
    def inputs(self) -> Inputs:
        """The module that makes processors, imported on first use: it imports transformers."""
        return cast(Inputs, importlib.import_module(f"{self.folder}.inputs"))

    @property
    def tiny(self) -> Tiny:
        """The module that makes a tiny model, imported on first use: it imports transformers."""
        return cast(Tiny, importlib.import_module(f"{self.folder}.tiny"))

    def read_config(self, hf: Mapping[str, Any]) -> VisionLanguageConfig:
        """Reads the contents of a transformers `config.json`.

        Raises:
            InputError: The contents describe another model or use an option that is not supported,
                or a field has a wrong type or range.
        """
        fields.require(hf, self.name)
        config = self.from_hf(hf)
        if not 0 <= config.image_token_id < config.text.vocab_size:
            raise InputError(
                f"image_token_id={config.image_token_id} must be a token of the vocabulary, from 0"
                f" to {config.text.vocab_size - 1:,}"
            )
        return config
