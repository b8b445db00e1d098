"""Section `config.compare`: methods by seeds by ratios (`python -m mmunlearner_jax.compare`)."""

import dataclasses
from typing import ClassVar, NamedTuple

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS

TASKS = ("classification", "cloze", "generation", "naming")
DEVELOPMENT = 100  # the first seed that settings may be chosen on


class Contrast(NamedTuple):
    """A difference that a comparison is to measure, named beforehand.

    Attributes:
        first: Name of a method or control.
        second: Name of another, whose value is subtracted.
        kind: Kind of scored questions, "SPLIT/MODALITY".
    """

    first: str
    second: str
    kind: str

    @classmethod
    def of(cls, text: str) -> "Contrast":
        """Reads "FIRST,SECOND,SPLIT/MODALITY".

        Raises:
            ValueError: The text has other than three parts, or one names nothing.
        """
        first, second, kind = (part.strip() for part in text.split(","))
        known = {*METHODS, *CONTROLS}
        if not {first, second} <= known or first == second or kind.count("/") != 1:
            raise ValueError(text)
        return cls(first, second, kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Section):
    """Methods and controls, compared where they have forgotten as much."""

    key: ClassVar[str] = "compare"

    seeds: tuple[int, ...] = option(tuple(range(10)), "Scored seeds, below 100.", least=0)
    development_seeds: tuple[int, ...] = option(
        (100, 101),
        "Seeds on which learning rates are chosen; they are never scored.",
        least=DEVELOPMENT,
        special="(): each scored seed chooses on questions that are set apart",
    )
    ratios: tuple[int, ...] = option((5, 10, 15), "Forget ratios.", unit="%", least=1)
    methods: tuple[str, ...] = option(
        tuple(METHODS),
        "Methods and controls whose learning rate is chosen from the grid.",
        choices=tuple({**METHODS, **CONTROLS}),
    )
    controls: tuple[str, ...] = option(
        ("random_mask",),
        "Runs of `unlearn.method`, or of the method that they name, with one thing changed, at the"
        " method's learning rate.",
        choices=tuple(CONTROLS),
    )
    control_seeds: int = option(
        0,
        "Seeds, the first of `seeds`, with all controls and, if text is taught, the never-taught"
        " model; the others run the controls of named contrasts alone.",
        unit="seeds",
        least=0,
        special="0: all seeds",
    )
    learning_rates: tuple[float, ...] = option(
        (1e-5, 3e-5), "Learning rates of the grid, two or more.", above=0
    )
    extensions: int = option(
        2, "Learning rates that are added where the best of the grid is at its edge.", least=0
    )
    forget_steps: int = option(40, "Longest run.", unit="steps", least=1)
    forgotten: float = option(
        0.9,
        "Part of what the gold model lacks, about the forget set's pictures, at which runs are"
        " compared.",
        above=0.5,
        below=1,
    )
    depth: float = option(
        1.0,
        "How many times the forget steps to the level `forgotten` a scored run takes, but no more"
        " than `forget_steps`. Its last model is relearned and attacked.",
        least=1,
    )
    halfway: bool = option(True, "Whether runs are scored halfway to that level, too.")
    apart: float = option(
        0.25,
        "Fraction of the questions that is set apart to follow runs by, and never scored.",
        above=0,
        below=1,
    )
    look_questions: int = option(
        64,
        "Questions of each kind to keep that are asked after every forget step.",
        unit="questions",
        least=1,
    )
    share_every: int = option(
        0,
        "Forget steps from one measurement of the squared gradients within masks to the next.",
        least=0,
        special="0: not measured",
    )
    relearn_steps: tuple[int, ...] = option(
        (),
        "Fine-tuning steps on one picture of each forgotten person, after which the last model of a"
        " run is asked once more about what was to be forgotten.",
        unit="steps",
        least=1,
        special="(): none",
    )
    relearn_rate: float = option(1e-4, "Learning rate of these steps.", above=0)
    relearn_batch: int = option(16, "Questions of such a step.", unit="questions", least=1)
    tasks: tuple[str, ...] = option(
        ("classification", "generation"), "Kinds of question that are scored.", choices=TASKS
    )
    keep_weights: bool = option(
        False, "Whether the last model of each run is kept, as a checkpoint `compare/models/NAME`."
    )
    audit: tuple[str, ...] = option(
        (),
        "Models of each seed that are attacked as in the stage `audit` (`config.audit`); their"
        " weights are kept, as with `keep_weights`.",
        choices=("vanilla", "gold", *METHODS, *CONTROLS),
    )
    plain_text: bool = option(
        False, "Whether the perplexity of plain English text is measured, too."
    )
    primary: str = option(
        "mmunlearner,random_mask,test_retain/vqa",
        "The one contrast that decides, `FIRST,SECOND,SPLIT/MODALITY`, at equal forgetting.",
        special='"": none',
    )
    secondary: tuple[str, ...] = option(
        (), "Further contrasts named beforehand, whose p-values Holm's rule adjusts."
    )
    margin: float = option(
        0.05, "Largest difference of accuracies that counts as none.", above=0, below=1
    )
    gold: str = option(
        "",
        "Checkpoint that was taught everything but the pictures to forget; runs end where they"
        " have forgotten as much.",
        special='"": runs end at chance',
    )
    never_taught: str = option(
        "", "Checkpoint that was taught nothing about the people to forget.", special='"": none'
    )
    tuned: tuple[str, ...] = option(
        (),
        "Workdirs whose stage `tune` chose the learning rates.",
        special="(): those of the development seeds, or else the run's own workdir",
    )

    def __post_init__(self):
        super().__post_init__()
        rates = self.learning_rates
        if len({*rates}) < max(2, len(rates)):
            self.refuse("learning_rates", "two or more, each once: a best rate lies between others")
        if any(seed >= DEVELOPMENT for seed in self.seeds):
            self.refuse(
                "seeds",
                f"seeds below {DEVELOPMENT}: the others are development seeds, never scored",
            )
        for name in ("primary", "secondary"):
            texts = [self.primary] if name == "primary" else self.secondary
            try:
                [Contrast.of(text) for text in texts if text]
            except ValueError as error:
                names = ", ".join((*METHODS, *CONTROLS))
                self.refuse(
                    name,
                    f"FIRST,SECOND,SPLIT/MODALITY, two names out of {names}, and a kind of question"
                    f" ({error})",
                )

    def controls_of(self, seed: int) -> tuple[str, ...]:
        """Returns the controls that are run with a scored seed."""
        if self.has_all_controls(seed):
            return self.controls
        named = {name for contrast in self.contrasts for name in contrast[:2]}
        return tuple(name for name in self.controls if name in named)

    def has_all_controls(self, seed: int) -> bool:
        """Returns whether a scored seed has all controls and the never-taught model."""
        return seed in self.seeds[: self.control_seeds or None]

    @property
    def contrasts(self) -> list[Contrast]:
        """The contrasts that were named beforehand, the primary one first."""
        return [Contrast.of(text) for text in (self.primary, *self.secondary) if text]
