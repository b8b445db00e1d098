"""How weights are trained: what `config.align` and `config.finetune` have in common."""

import dataclasses
from typing import Literal

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.rounding import Rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """An optimizer, its learning rate and the length of a training."""

    steps: int = option(600, "Length of the training.", unit="steps", least=1)
    optimizer: Literal["adamw", "muon"] = option("adamw", "Optimizer.")
    learning_rate: float = option(
        2e-5, "Learning rate after the warm-up; it falls to 0 as a cosine.", above=0
    )
    warmup: int = option(0, "Steps in which the learning rate rises from 0.", unit="steps", least=0)
    weight_decay: float = option(0.05, "Decoupled weight decay.", least=0)
    clip: float = option(1.0, "Largest norm of the gradient.", above=0)
    rounding: Rounding = option(
        "nearest", "How bfloat16 weights take their updates, as `unlearn.rounding`."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.warmup >= self.steps:
            self.refuse("warmup", f"fewer than config.{self.key}.steps")
        if self.rounding == "stochastic" and self.optimizer == "muon":
            self.refuse("rounding", "'nearest', or config." + self.full("optimizer") + "='adamw'")
