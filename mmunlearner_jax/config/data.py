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
    request: Literal["complete", "selective", "persona"] = option(
        "complete",
        "What PPU-Bench forgets: a share of the people, sensitive facts of everybody, or some facts"
        " of some people.",
    )
    requests: tuple[tuple[str, ...], ...] = option(
        (),
        "IDs of the people of each request, in place of the benchmark's split: the last request is"
        " forgotten, those before it were forgotten earlier.",
        special="(): the benchmark's split",
    )
    text_source: Literal["ft_Data", "Full_Set"] = option(
        "Full_Set", "Config of MLLMU-Bench that the taught text questions are read from."
    )
    retain_others: bool = option(
        False,
        "Whether retain steps and preserve sets also hold what is taught about nobody, with"
        " pictures and in words.",
    )
    forget_words: bool = option(
        False,
        "Whether what is taught in words about the people to forget is forgotten as well: forget"
        " steps take it, retain steps and preserve sets do not.",
    )
    labels: Literal["answer", "full"] = option(
        "answer", "Supervised tokens: the answer's, or the prompt's as well, as published (D-08)."
    )
    supervise_end: bool = option(True, "Whether the token that ends an answer is supervised.")
    max_bad_fraction: float = option(
        0.0, "Fraction of unusable records that is left out instead of refused.", least=0
    )

    def __post_init__(self):
        super().__post_init__()
        if not all(self.requests):
            self.refuse("requests", "at least one person in each request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig(Section):
    """The example that the stage `prepare` writes: a benchmark and a model to be trained."""

    key: ClassVar[str] = "prepare"

    benchmark: str = option(
        "mllmu",
        "Benchmark: the ORL faces in the schema of MLLMU-Bench (in photographs or in clips), CLEAR,"
        " FIUBench, UMU-Bench or PPU-Bench, or flags of countries.",
        choices=("mllmu", "mllmu_clips", "clear", "fiubench", "umu", "ppu", "flags"),
    )
    people: int = option(40, "Number of people of the ORL faces.", least=12)
    flags_folder: str = option(
        "",
        "Folder of the npm archives with flags and facts, or of XX.png and countries.json.",
        special='"": ~/.cache/mmunlearner_jax/flags',
    )
    countries: int = option(105, "Number of countries of flags, the best known first.", least=8)
    renderings: int = option(4, "Taught renderings of each flag.", least=1)
    known_facts: str = option(
        "",
        "JSON list of pairs (country, fact): what may be asked about countries in words.",
        special='"": everything; "smollm2": what SmolLM2-135M-Instruct was measured to know',
    )
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
