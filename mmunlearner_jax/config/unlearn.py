"""Section `config.unlearn`: the method, its optimizer, its schedule and when it stops."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import Extensible, Section, option
from mmunlearner_jax.unlearn.anchor import Anchor
from mmunlearner_jax.unlearn.anchors import ANCHORS
from mmunlearner_jax.unlearn.lookahead import Ahead
from mmunlearner_jax.unlearn.method import Loss, Method
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.rounding import Rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig(Section):
    """Adapters instead of full weights (docs/lora.md)."""

    key: ClassVar[str] = "unlearn.lora"

    rank: int = option(0, "Rank of the adapters.", least=0, special="0: full weights")
    alpha: float = option(16.0, "Scale of the adapters, divided by their rank.", above=0)
    targets: tuple[str, ...] = option(
        (r"^model\.",),
        'Regular expressions of layer names; the first that matches a name decides, "!..." says'
        " no.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.rank and not self.targets:
            self.refuse("targets", "patterns of names, or config.unlearn.lora.rank=0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AheadConfig(Section):
    """Fine-tuning on one picture of each person, after which forget gradients are taken."""

    key: ClassVar[str] = "unlearn.ahead"

    steps: int = option(
        -1,
        "Steps of fine-tuning before each forget gradient; 0: none.",
        least=-1,
        special="-1: as the method does",
    )
    rate: float = option(2e-4, "Learning rate of these steps.", above=0)
    batch: int = option(16, "Questions of these steps.", unit="questions", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreconditionConfig(Section):
    """Ascent divided by importances of what is kept (`forget_optimizer=preconditioned`)."""

    key: ClassVar[str] = "unlearn.precondition"

    damping: float = option(
        1.0, "Constant in the denominator, relative to the mean of the others.", above=0
    )
    ring: int = option(4, "Last retain gradients that ascent is orthogonal to.", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig(Section):
    """Relearning on one picture of each person, by which `stop_by=relearned` ends a run."""

    key: ClassVar[str] = "unlearn.probe"

    steps: int = option(10, "Steps of fine-tuning before each look.", unit="steps", least=1)
    rate: float = option(1e-4, "Learning rate of these steps.", above=0)
    batch: int = option(16, "Questions of such a step.", unit="questions", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnlearnConfig(Extensible):
    """Forget steps, alternating with retain steps."""

    key: ClassVar[str] = "unlearn"
    plugged: ClassVar[Mapping[str, type[Section]]] = {
        method.options.key.removeprefix("unlearn."): method.options
        for method in METHODS.values()
        if method.options
    }

    method: str = option("mmunlearner", "Method (docs/add-a-method.md).", choices=tuple(METHODS))
    learning_rate: float = option(1e-5, "Largest learning rate of both kinds of step.", above=0)
    adam_eps: float = option(1e-6, "Constant in the denominator of AdamW.", above=0)
    weight_decay: float = option(0.0, "Decoupled weight decay.", least=0)
    decay: Literal["constant", "linear", "cosine"] = option(
        "constant", "Shape of the learning rate; `linear` and `cosine` end at 0."
    )
    warmup: int = option(0, "Steps in which the learning rate rises from 0.", unit="steps", least=0)
    clip: float = option(
        1.0, "Largest norm of the gradient, before the mask.", least=0, special="0: none"
    )
    alpha: float = option(1.0, "Factor of the finished update of forget steps (D-04).", above=0)
    rounding: Rounding = option(
        "nearest",
        "How bfloat16 weights take their updates: `stochastic` loses no small update, in"
        " expectation, and keeps the moments in bfloat16 likewise.",
    )
    mask_on: Literal["update", "gradient"] = option(
        "update",
        "Whether the mask covers the gradient and the finished update, or the gradient alone, as"
        " published (D-03).",
    )
    optimizers: Literal[1, 2] = option(
        1, "Optimizer states: one that forget and retain steps share, or one each."
    )
    epochs: int = option(
        1,
        "Passes over the retain pictures, forget steps spread evenly, as published.",
        least=0,
        special="0: `iterations` instead",
    )
    iterations: int = option(
        0, "Length of the run where `epochs` is 0; each iteration has a retain step.", least=0
    )
    forget_every: int = option(1, "Iterations from one forget step to the next.", least=1)
    forget_repeat: int = option(
        1, "Forget steps each time.", unit="steps", least=0, special="0: retain steps alone"
    )
    forget_optimizer: Literal["adamw", "sgd", "preconditioned"] = option(
        "adamw",
        "Optimizer of forget steps; `sgd` needs two optimizer states. `preconditioned` divides by"
        " importances, and spares what the last retain steps learned.",
    )
    accumulate: int = option(1, "Batches whose mean gradient makes one step.", least=1)
    forget_batch: int = option(4, "Questions of a forget step.", unit="questions", least=1)
    retain_batch: int = option(
        4, "Questions with pictures of a retain step.", unit="questions", least=1
    )
    text_batch: int = option(
        4,
        "Questions in words of a retain step.",
        unit="questions",
        least=0,
        special="0: pictures alone",
    )
    pack: int = option(1, "Questions about one picture that share a row.", least=1)
    text_pack: int = option(1, "Questions in words that share a row.", least=1)
    forget_text: bool = option(
        True, "Whether retain steps also learn the text about the people to forget."
    )
    moves: tuple[str, ...] = option(
        (),
        "Module groups that forget and retain steps move, except those of `model.frozen`.",
        choices=GROUPS,
        special="(): those of the method",
    )
    masked: str = option(
        "",
        "Whether forget steps move the weights of the mask alone.",
        choices=("", "yes", "no"),
        special='"": as the method does',
    )
    refresh: int = option(
        0,
        "Forget steps after which the mask is measured again, on the model as it is then.",
        unit="steps",
        least=0,
        special="0: never",
    )
    target: str = option(
        "",
        "Method whose forget loss and answers are used.",
        choices=("", *METHODS),
        special='"": the method itself',
    )
    anchor: str = option(
        "",
        "What retain steps also keep near the vanilla model's.",
        choices=("", "none", *ANCHORS),
        special='"": as the method does',
    )
    anchor_weight: float = option(1.0, "Weight of the anchor in the retain loss.", above=0)
    stop_remembered: float = option(
        -1.0,
        "Ends the run once at most this part of what the vanilla model remembered of the forget"
        " set's training answers is left.",
        below=1,
        special="below 0: never before the end",
    )
    stop_by: Literal["exact", "probability", "named", "relearned"] = option(
        "exact",
        "What is remembered: the fraction of answers that are given exactly; the mean probability"
        " of their tokens, for models that have other wordings of their own; or the share of"
        " questions to which the name is said, or preferred to other names (a share of all, not of"
        " what was named before); or the probability after relearning (`unlearn.probe`).",
    )
    stop_examples: int = option(
        0,
        "Training answers that the stopping rule asks for, drawn by the seed.",
        least=0,
        special="0: all",
    )
    stop_every: int = option(50, "Iterations from one question to the next.", least=1)
    lora: LoraConfig = option(LoraConfig, "Adapters instead of full weights.")
    ahead: AheadConfig = option(AheadConfig, "Fine-tuning before forget gradients.")
    precondition: PreconditionConfig = option(PreconditionConfig, "Preconditioned ascent.")
    probe: ProbeConfig = option(ProbeConfig, "Relearning that ends a run.")

    def __post_init__(self):
        super().__post_init__()
        if not self.epochs and self.iterations < 1:
            self.refuse("iterations", "1 or more, or set config.unlearn.epochs")
        if self.forget_optimizer == "sgd" and self.optimizers == 1:
            self.refuse("optimizers", "2: SGD cannot share the optimizer state of AdamW")
        if self.forget_optimizer == "preconditioned" and self.optimizers == 2:
            self.refuse("optimizers", "1: forget steps read what retain steps record in it")

    @property
    def chosen(self) -> Method:
        """The method."""
        return METHODS[self.method]

    @property
    def forgetting(self) -> Method:
        """The method whose forget loss is used."""
        return METHODS[self.target or self.method]

    @property
    def is_masked(self) -> bool:
        """Whether forget steps move the weights of the mask alone."""
        return self.chosen.masked if not self.masked else self.masked == "yes"

    @property
    def looks_ahead(self) -> Ahead | None:
        """The fine-tuning before forget gradients."""
        steps = self.chosen.ahead if self.ahead.steps < 0 else self.ahead.steps
        return Ahead(steps, self.ahead.rate) if steps else None

    @property
    def held(self) -> tuple[str, ...]:
        """Module groups that no step of the run moves, `model.frozen` aside."""
        return tuple(group for group in GROUPS if group not in (self.moves or self.chosen.moves))

    @property
    def learns_text(self) -> bool:
        """Whether retain steps learn text; it moves nothing but the language model."""
        return bool(self.text_batch) and "language" not in self.held

    @property
    def chosen_anchor(self) -> Anchor | None:
        """The anchor of the retain steps."""
        return ANCHORS.get(self.anchor or self.chosen.anchor)

    def of_loss(self, loss: Loss) -> Section | None:
        """Returns the options of a loss; None where it has none."""
        return self.own[loss.options.key.removeprefix("unlearn.")] if loss.options else None
