"""What a benchmark is to the rest of the package: a record, and the reader that it names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from mmunlearner_jax.data.samples import Question, Sample, option_letters

Kind = tuple[str, str]  # a split and a modality ("vqa" or "qa") of scored questions
Questions = dict[str, list[Question]]  # by split
# Raises `InputError` for width and height of a picture that the model cannot see.
Check = Callable[[tuple[int, int]], None]


def no_check(size: tuple[int, int]) -> None:
    """Takes pictures of any size: no model is known yet."""


class ScoredKind(NamedTuple):
    """What the questions of one kind are about, and what unlearning is to do to their score.

    Attributes:
        label: what reports call them.
        falls: whether the score is to fall; otherwise it is to stay.
        chosen_by: whether their multiple choice counts in the mean of what is to stay, by which the
            stage `compare` chooses settings.
        headline: whether a run's page begins with their multiple choice.
    """

    label: str
    falls: bool = False
    chosen_by: bool = False
    headline: bool = False


class Benchmark(Protocol):
    """A reader of people to forget, of others, and of what is asked about both.

    Attributes:
        record: What is known of the benchmark without reading it.
        taught: Config of everything that is taught.
        everyone: Config of all people; what else is taught belongs to nobody.
        seed: Of whatever is drawn.
        check: Refuses the size of a picture that the model cannot see; any size will do until it is
            set to `Pictures.check`.
    """

    record: "BenchmarkRecord"
    taught: str
    everyone: str
    seed: int
    check: Check

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, checked."""
        ...

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once."""
        ...

    def names(self) -> dict[str, str]:
        """Returns what the people are called."""
        ...

    def training(self, config: str) -> list[Sample]:
        """Returns what is taught with pictures about the people of a config."""
        ...

    def text_training(self, config: str) -> list[Sample]:
        """Returns what is taught in words about the people of a config."""
        ...

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> Questions:
        """Returns all scored questions, by split; of the retained at most so many photographs."""
        ...


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord:
    """All that the package knows of a benchmark; `BENCHMARKS` has one for each.

    Attributes:
        name: In configs and files, e.g. "mllmu".
        title: In messages and pages, e.g. "MLLMU-Bench".
        repository: Of the data set on the Hugging Face hub, "OWNER/NAME"; "": it is on no hub.
        revision: Pinned commit of the repository, as in third_party/manifest.toml.
        dataset: Name of the TensorFlow Datasets builder, in lower case with "_".
        folder: Name of a config folder that every copy has and no other benchmark's copy.
        configs: Names of the released configs.
        schema: The columns of a config, by its name.
        reader: Opens a copy: `reader(root, seed=..., max_bad_fraction=..., **options)`.
        options: Fields of `config.data` that the reader takes besides.
        kinds: The kinds of scored questions, in the order of tables. Every benchmark has
            ("forget", "vqa"), the pictures of the people to forget.
        turn: The published wording of a question, as the user's turn of the chat template.
        whole_prompt: The published prompt where it is the whole text, without the chat template,
            with `<image>` for each picture; None: the published code has no such prompts.
        with_shots: The few-shot rule `(bench, questions, retain=..., protocol=...)`, which puts
            solved questions before those to ask; None: it is asked without demonstrations.
    """

    name: str
    title: str
    repository: str = ""
    revision: str = ""
    dataset: str
    folder: str
    configs: tuple[str, ...]
    schema: Callable[[str], pa.Schema]
    reader: Callable[..., Benchmark]
    options: tuple[str, ...] = ()
    kinds: Mapping[Kind, ScoredKind]
    turn: Callable[[Question], str]
    whole_prompt: Callable[[Question], str] | None = None
    with_shots: Callable[..., Questions] | None = None

    def owns(self, root: Path) -> bool:
        """Returns whether a folder holds a copy of the benchmark."""
        return (root / self.folder).is_dir()

    def open(self, root: Path, data: Any, seed: int) -> Benchmark:
        """Opens a copy.

        Args:
            root: Folder that holds the config folders.
            data: `config.data`: `max_bad_fraction` and what `options` names.
            seed: Of whatever is drawn.

        Raises:
            InputError: The folder holds no configs, or an option has an unknown value.
        """
        options = {name: getattr(data, name) for name in ("max_bad_fraction", *self.options)}
        return self.reader(root, seed=seed, **options)


def listed(question: Question, mark: str) -> str:
    """Returns a question and its options, a line each: letter, mark, text."""
    options = zip(option_letters(question.options), question.options, strict=True)
    return "\n".join([question.question, *(f"{letter}{mark}{text}" for letter, text in options)])
