"""Section `config.compare`: methods by seeds by ratios (`python -m mmunlearner_jax.compare`)."""

import dataclasses
from typing import ClassVar

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS

TASKS = ("classification", "cloze", "generation", "naming")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Section):
    """Every method at its best setting of a small grid, and controls, by one stopping rule."""

    key: ClassVar[str] = "compare"

    seeds: tuple[int, ...] = option((0, 1, 2), "Seeds.", least=0)
    ratios: tuple[int, ...] = option((5, 10, 15), "Forget ratios.", unit="%", least=1)
    methods: tuple[str, ...] = option(
        tuple(METHODS),
        "Methods, each run at every learning rate until enough is forgotten.",
        choices=(*METHODS, *CONTROLS),
    )
    learning_rates: tuple[float, ...] = option((1e-5,), "Learning rates of the grid.", above=0)
    iterations: int = option(90, "Longest run.", unit="iterations", least=1)
    stop_every: int = option(
        6, "Iterations from one look at what is forgotten to the next.", least=1
    )
    apart: float = option(
        0.25,
        "Fraction of the questions that is set apart to choose settings by, and never scored.",
        above=0,
        below=1,
    )
    forgotten: float = option(
        0.35, "Accuracy about the forget set's pictures at which a run ends.", above=0, below=1
    )
    controls: tuple[str, ...] = option(
        (), "Runs of `unlearn.method` with one thing changed.", choices=tuple(CONTROLS)
    )
    tasks: tuple[str, ...] = option(
        ("classification", "generation"), "Kinds of question that are scored.", choices=TASKS
    )
    retain_only: str = option(
        "", "Checkpoint that was never taught the people to forget.", special='"": none'
    )

    def __post_init__(self):
        super().__post_init__()
        rates = self.learning_rates
        if not rates or len({*rates}) < len(rates):
            self.refuse("learning_rates", "one or more, each once")
        if self.iterations % self.stop_every:
            self.refuse(
                "iterations", "a multiple of config.compare.stop_every: runs end with a look"
            )
