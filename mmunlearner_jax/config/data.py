"""Sections `config.data` and `config.prepare`: what is taught and asked."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The benchmark, and how its samples become tokens and labels."""

    key: ClassVar[str] = "data"

    benchmark: str = option(
        "",
        "Folder of the benchmark's parquet files, or hf://datasets/OWNER/NAME.",
        special='"": the one that the stage `prepare` writes',
    )
    forget_ratio: int = option(
        5, "Share of the people to forget; the benchmark has a split for it.", unit="%", least=1
    )
    text_source: Literal["ft_Data", "Full_Set"] = option(
        "Full_Set", "Config of MLLMU-Bench that the taught text questions are read from."
    )
    labels: Literal["answer", "full"] = option(
        "answer", "Supervised tokens: the answer's, or the prompt's as well, as published (D-08)."
    )
    supervise_end: bool = option(True, "Whether the token that ends an answer is supervised.")
    max_bad_fraction: float = option(
        0.0, "Fraction of unusable records that is left out instead of refused.", least=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig(Section):
    """The example that the stage `prepare` writes: a benchmark and a model to be trained."""

    key: ClassVar[str] = "prepare"

    benchmark: str = option("mllmu", "Form of the benchmark.", choices=("mllmu", "clear"))
    architecture: str = option("llava", "Architecture.", choices=tuple(ARCHITECTURES))
    vision: Mapping[str, Any] = option(
        dict, "Sizes of the vision tower, in the architecture's terms."
    )
    language: Literal["", "smollm2"] = option(
        "",
        "Pretrained decoder, read from a Python package; then `text` may hold num_hidden_layers,"
        " which keeps so many of its first layers, and nothing else.",
        special='"": a random one with the sizes of `text`',
    )
    text: Mapping[str, Any] = option(dict, "Sizes of the language model, in Llama's terms.")
    min_pixels: int = option(
        56 * 56, "Smallest picture, where the model takes any size.", unit="pixels", least=1
    )
    max_pixels: int = option(
        84 * 112, "Largest picture, where the model takes any size.", unit="pixels", least=1
    )
