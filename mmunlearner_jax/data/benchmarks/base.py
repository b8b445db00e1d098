"""A benchmark as the rest of the package sees it: a record, and the reader that it names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from mmunlearner_jax.data.samples import Question, Sample, option_letters

Kind = tuple[str, str]  # a split and a modality ("vqa" or "qa") of scored questions
Questions = dict[str, list[Question]]  # by split
# Raises `InputError` if the model cannot take a picture of this width and height, or a clip of so
# many frames (`Pictures.check`).
Check = Callable[..., None]


def no_check(size: tuple[int, int], frames: int = 1) -> None:
    """Accepts pictures of any size, and clips, while no model is known."""


class ScoredKind(NamedTuple):
    """A kind of scored questions, and what unlearning should do to their score.

    Attributes:
        label: Label in reports.
        falls: Whether the score should fall; otherwise it should stay.
        chosen_by: Whether their multiple choice counts in the mean of the scores that should stay;
            the stage `compare` chooses settings by this mean.
        headline: Whether a run's page begins with their multiple choice.
        earlier: Whether they are about people of an earlier request (`config.data.requests`); a
            score that that request made fall should not rise again.
    """

    label: str
    falls: bool = False
    chosen_by: bool = False
    headline: bool = False
    earlier: bool = False


class Benchmark(Protocol):
    """A reader of the people to forget, of other people, and of the questions about both.

    Attributes:
        record: The benchmark's record, which is known before anything is read.
        taught: Config of all samples.
        everyone: Config of all people; other samples are about nobody.
        seed: Seed of all random choices.
        check: Refuses the size of a picture that the model cannot take. It accepts any size until
            it is set to `Pictures.check`.
    """

    record: "BenchmarkRecord"
    taught: str
    everyone: str
    seed: int
    check: Check

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, after checks."""
        ...

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once."""
        ...

    def names(self) -> dict[str, str]:
        """Returns the names of the people, by their ID."""
        ...

    def training(self, config: str) -> list[Sample]:
        """Returns the samples with pictures about the people of a config."""
        ...

    def text_training(self, config: str) -> list[Sample]:
        """Returns the samples without pictures about the people of a config."""
        ...

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> Questions:
        """Returns all scored questions, by split.

        Args:
            forget: Config of the people to forget.
            retain: Config of the other people.
            photos_per_person: Most photographs of each of the other people; None: all.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord:
    """All that the package knows of a benchmark; `BENCHMARKS` has one record for each.

    Attributes:
        name: Name in configs and files, e.g. "mllmu".
        title: Name in messages and pages, e.g. "MLLMU-Bench".
        repository: Data set on the Hugging Face hub, "OWNER/NAME"; "" if it is not there.
        revision: Pinned commit of the repository, as in third_party/manifest.toml.
        files: Patterns of the files that are fetched from the hub.
        dataset: Name of the TensorFlow Datasets builder, in lower case with "_".
        folder: Name of a config folder, or of a file, that every copy has, and no copy of another
            benchmark, unless that one has it among its `configs`.
        configs: Names of the released configs.
        schema: Returns the columns of a config, by its name.
        reader: Opens a copy: `reader(root, seed=..., max_bad_fraction=..., **options)`.
        options: Fields of `config.data` that the reader takes as further options.
        by_person: Whether every sample and question about people names its person, and whole people
            are forgotten; `config.data.requests` needs both.
        kinds: The kinds of scored questions, in the order of tables. Every benchmark has
            ("forget", "vqa"), the pictures of the people to forget.
        turn: Returns the published wording of a question, as the user's turn of the chat template.
        whole_prompt: Returns the published prompt, if it bypasses the chat template, with `<image>`
            for each picture; None: the published code has no such prompts.
        with_shots: The few-shot rule `(bench, questions, retain=..., protocol=...)`, which adds
            solved questions to each question's prompt; None: the benchmark has no such setting.
    """

    name: str
    title: str
    repository: str = ""
    revision: str = ""
    files: tuple[str, ...] = ("*.parquet",)
    dataset: str
    folder: str
    configs: tuple[str, ...]
    schema: Callable[[str], pa.Schema]
    reader: Callable[..., Benchmark]
    options: tuple[str, ...] = ()
    by_person: bool = True
    kinds: Mapping[Kind, ScoredKind]
    turn: Callable[[Question], str]
    whole_prompt: Callable[[Question], str] | None = None
    with_shots: Callable[..., Questions] | None = None

    def owns(self, root: Path) -> bool:
        """Returns whether a folder holds a copy of the benchmark."""
        return (root / self.folder).exists()

    def open(self, root: Path, data: Any, seed: int) -> Benchmark:
        """Opens a copy.

        Args:
            root: Folder that holds the config folders.
            data: `config.data`, which has `max_bad_fraction` and the fields in `options`.
            seed: Seed of all random choices.

        Raises:
            InputError: The folder holds no configs, or an option has an unknown value.
        """
        options = {name: getattr(data, name) for name in ("max_bad_fraction", *self.options)}
        return self.reader(root, seed=seed, **options)


def listed(question: Question, mark: str) -> str:
    """Returns a question and then its options, one per line: letter, mark, text."""
    options = zip(option_letters(question.options), question.options, strict=True)
    return "\n".join([question.question, *(f"{letter}{mark}{text}" for letter, text in options)])


def about_nobody(bench: Benchmark, samples: list[Sample]) -> list[Sample]:
    """Returns the samples that are about none of the people of a benchmark."""
    people = {"", *bench.people(bench.everyone)}  # CLEAR's texts name no person
    return [sample for sample in samples if sample.person not in people]
