"""What the stages ask of a benchmark, and how they open one."""

from pathlib import Path
from typing import Any, Protocol

from mmunlearner_jax.data.clear import ClearBench
from mmunlearner_jax.data.mllmu import MLLMUBench
from mmunlearner_jax.data.parquet import Check
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError


class Benchmark(Protocol):
    """A reader of people to forget, of others, and of what is asked about both.

    Attributes:
        taught: Config of everything that is taught.
        everyone: Config of all people; what else is taught belongs to nobody.
        check: Refuses the size of a picture that the model cannot see; any size will do until it is
            set to `Pictures.check`.
    """

    taught: str
    everyone: str
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
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split; of the retained at most so many photographs."""
        ...


def open_benchmark(root: Path, data: Any, seed: int) -> Benchmark:
    """Opens MLLMU-Bench or CLEAR, told apart by the config folders that are there.

    Args:
        root: Folder that holds the config folders.
        data: `config.data`: `max_bad_fraction`, and for MLLMU-Bench `text_source`.
        seed: Of whatever is drawn.

    Raises:
        InputError: It is neither of the two, or both.
    """
    mllmu, clear = (root / "Full_Set").is_dir(), (root / "full+tofu").is_dir()
    if mllmu == clear:
        raise InputError(
            f"{root}: holds {'both' if mllmu else 'neither'} Full_Set {'and' if mllmu else 'nor'} "
            "full+tofu; name the folder of one benchmark, MLLMU-Bench or CLEAR"
        )
    options = {"seed": seed, "max_bad_fraction": data.max_bad_fraction}
    if clear:
        return ClearBench(root, **options)
    return MLLMUBench(root, text_source=data.text_source, **options)
