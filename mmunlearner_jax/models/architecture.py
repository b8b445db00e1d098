"""What makes an architecture: one record, which its folder holds.

Everything that depends on the architecture is an attribute of the record. No other module asks
which architecture a model has.
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
    from mmunlearner_jax.processing.pictures import Pictures


class Inputs(Protocol):
    """The module `inputs.py` of a folder."""

    def load(
        self,
        config: Any,
        files: "Companions",
        min_pixels: int,
        max_pixels: int,
        patch_budgets: tuple[int, ...],
    ) -> "tuple[Any, Pictures, int]":
        """Makes the processor of a checkpoint and checks it against the model.

        Args:
            config: the model's config, of the folder's own class.
            files: the small files of the checkpoint.
            min_pixels: pixels of a picture below which it is enlarged; 0: as the files say.
            max_pixels: pixels of a picture above which it is shrunk; 0: as the files say.
            patch_budgets: the numbers of patches that a row may have; (): any power of two of
                tokens.

        Returns:
            The processor, with the attributes `tokenizer`, `image_token`, `image_token_id` and
            `chat_template`; what turns pictures into arrays; and the number of tokens of a picture.

        Raises:
            InputError: the files do not fit the model, or the model cannot take the options.
        """
        ...


class Tiny(Protocol):
    """The module `tiny.py` of a folder."""

    def make(
        self,
        lessons: "Iterable[Lesson]",
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        pixels: tuple[int, int],
    ) -> tuple[VisionLanguageConfig, Any]:
        """Makes the config of a small untrained model and a processor that fits it.

        Args:
            lessons: what the tokenizer is trained on.
            vision: fields of the config class of the vision tower.
            text: fields of the config class of the decoder, without those of the vocabulary.
            pixels: the pixels of the smallest and of the largest picture, where the model takes
                pictures of any size.

        Returns:
            The model's config, and the processor, which has `save_pretrained`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture with all that the package needs to know of it.

    Attributes:
        folder: the dotted name of its package, which has the modules `inputs` and `tiny`.
        config: the class of its configs.
        from_hf: turns the contents of a `config.json` into a config; `read_config` calls it.
        to_hf: turns a config into the contents of a `config.json` that transformers 4 and 5 read.
        table: names and orientations of its tensors, and its module groups.
        sizes: functions that make the configs of the published checkpoints, by the names that
            `config.model.size` may have.
        maskable: a regular expression, searched in the Hugging Face names of the weights: those
            that a saliency mask may cover unless `config.mask.cover` names others.
        published_in_template: whether MLLMU-Bench's published code puts its prompts into this
            model's chat template; False: the published prompt is the whole text.
        lookalikes: what is missing for model types that are easily taken for this one, by the
            `model_type` of their `config.json`.
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
        """The module that makes processors; imported on use, for it imports transformers."""
        return cast(Inputs, importlib.import_module(f"{self.folder}.inputs"))

    @property
    def tiny(self) -> Tiny:
        """The module that makes a tiny example; imported on use, for it imports transformers."""
        return cast(Tiny, importlib.import_module(f"{self.folder}.tiny"))

    def read_config(self, hf: Mapping[str, Any]) -> VisionLanguageConfig:
        """Reads the contents of a transformers `config.json`.

        Raises:
            InputError: it describes another model, uses an option that is not supported, or a field
                has a wrong type or range.
        """
        fields.require(hf, self.name)
        config = self.from_hf(hf)
        if not 0 <= config.image_token_id < config.text.vocab_size:
            raise InputError(
                f"image_token_id={config.image_token_id} must be a token of the vocabulary, from 0"
                f" to {config.text.vocab_size - 1:,}"
            )
        return config
