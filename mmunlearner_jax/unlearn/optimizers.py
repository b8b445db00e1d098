"""The optimizers of forget and retain steps."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import optax

from mmunlearner_jax.config.unlearn import UnlearnConfig
from mmunlearner_jax.unlearn.preconditioned import preconditioned, recorded
from mmunlearner_jax.unlearn.rounding import ROUNDINGS, Rounding
from mmunlearner_jax.unlearn.schedule import Schedule, shape_of
from mmunlearner_jax.unlearn.transforms import MaskOn, masked_ascent, masked_descent


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of an optimizer that decide its program; equal values give the same program.

    The learning rate is part of the optimizer's state and not a constant of the program. A step
    uses the learning rate that the state was created with.

    Attributes:
        eps: Constant in the denominator.
        weight_decay: Decoupled weight decay.
        clip: Largest norm of the gradient before the mask is applied, as published; 0: no limit.
        accumulate: Number of batches whose mean gradient makes one step.
        decay: Shape of the learning rate over the run, a key of `schedule.DECAYS`.
        warmup: Number of steps in which the learning rate rises from 0.
        steps: Number of steps that the state counts over the run. It is 0 where the learning rate
            is constant, so that runs of any length have the same program.
        kind: How a gradient becomes an update: by Adam, as it is, or as in `preconditioned`.
        rounding: How sums of weights and updates are rounded, a key of `rounding.ROUNDINGS`.
        ring: Number of retain gradients that the state keeps; 0: none.
        damping: As in `preconditioned`.
    """

    eps: float
    weight_decay: float
    clip: float
    accumulate: int
    decay: str
    warmup: int
    steps: int
    kind: Literal["adamw", "sgd", "preconditioned"] = "adamw"
    rounding: Rounding = "nearest"
    ring: int = 0
    damping: float = 0.0

    @classmethod
    def of(cls, options: UnlearnConfig, steps: int) -> "Settings":
        """Returns the settings that `config.unlearn` describes.

        Args:
            options: Section `config.unlearn`.
            steps: Number of steps that the state counts over the run.
        """
        if options.decay == "constant" and not options.warmup:
            steps = 0
        return cls(
            options.adam_eps,
            options.weight_decay,
            options.clip,
            options.accumulate,
            options.decay,
            options.warmup,
            steps,
            rounding=options.rounding,
            ring=options.precondition.ring * (options.forget_optimizer == "preconditioned"),
            damping=options.precondition.damping,
        )

    def descent(self, learning_rate: float, seed: int = 0) -> optax.GradientTransformation:
        """Returns the optimizer of retain steps.

        Args:
            learning_rate: Largest learning rate.
            seed: Seed of the rounding; like the learning rate it is part of the state.

        Raises:
            InputError: The warm-up is not shorter than the run.
        """
        return self._whole(self._chain(learning_rate), seed)

    def masked(
        self, learning_rate: float, seed: int = 0, *, ascends: bool, mask_on: MaskOn, alpha: float
    ) -> optax.GradientTransformationExtraArgs:
        """Returns the optimizer of forget steps. Its state has the structure of `descent`'s.

        Args:
            learning_rate: Largest learning rate.
            seed: As in `descent`.
            ascends: Whether forget steps raise the loss.
            mask_on: What the mask is applied to, see `masked_ascent`.
            alpha: Factor of the finished update.

        Raises:
            InputError: The warm-up is not shorter than the run.
        """
        masked = masked_ascent if ascends else masked_descent
        return self._whole(masked(self._chain(learning_rate), mask_on=mask_on, alpha=alpha), seed)

    def _chain(self, learning_rate: float) -> optax.GradientTransformation:
        parts = [*self._directions(), optax.add_decayed_weights(self.weight_decay)]
        shape = shape_of(decay=self.decay, warmup=self.warmup, steps=self.steps)
        if shape is not None:
            parts.append(optax.scale_by_schedule(shape))
        # Float32 whatever the weights: bfloat16 would change the learning rate by up to 0.4 %.
        scale = optax.inject_hyperparams(
            optax.scale_by_learning_rate, hyperparam_dtype=jnp.dtype("float32")
        )
        return optax.chain(*parts, scale(learning_rate))

    def _directions(self) -> list[optax.GradientTransformation]:
        """Returns what comes before the learning rate: Adam, or what takes its place."""
        adam = optax.scale_by_adam(eps=self.eps)
        if self.kind == "preconditioned":
            return [preconditioned(adam, self.ring, self.damping)]
        if self.kind == "sgd":
            return []
        return [recorded(adam, self.ring) if self.ring else adam]

    def _whole(self, transform: optax.GradientTransformation, seed: int) -> Any:
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        whole = optax.chain(clip, transform)
        if self.accumulate > 1:
            several = optax.MultiSteps(whole, self.accumulate)
            # Not its `gradient_transformation()`, which does not say that it takes masks.
            whole = optax.GradientTransformationExtraArgs(several.init, several.update)
        return ROUNDINGS[self.rounding](whole, seed=seed)


def settings(options: UnlearnConfig, schedule: Schedule) -> tuple[Settings, Settings]:
    """Returns the settings of the optimizers of forget and of retain steps.

    The states of both optimizers have the same structure, unless forget steps use SGD.

    Args:
        options: Section `config.unlearn`.
        schedule: Schedule of forget and retain steps.
    """
    forgets, retains = schedule.counts(schedule.iterations)
    if options.optimizers == 1:  # a shared state counts the steps of both kinds
        forgets = retains = forgets + retains
    forget = dataclasses.replace(Settings.of(options, forgets), kind=options.forget_optimizer)
    return forget, Settings.of(options, retains or forgets)


def optimizers(
    options: UnlearnConfig, schedule: Schedule, seed: int = 0
) -> tuple[optax.GradientTransformation, optax.GradientTransformationExtraArgs]:
    """Returns the optimizers of retain and of forget steps at the config's learning rate.

    Args:
        options: Section `config.unlearn`.
        schedule: Schedule of forget and retain steps.
        seed: Seed of the rounding; the two optimizers draw different numbers.

    Raises:
        InputError: The warm-up is not shorter than the run.
    """
    forget, retain = settings(options, schedule)
    masked = forget.masked(
        options.learning_rate,
        2 * seed + 1,
        ascends=options.forgetting.ascends,
        mask_on=options.mask_on,
        alpha=options.alpha,
    )
    return retain.descent(options.learning_rate, 2 * seed), masked


def state_optimizers(
    options: UnlearnConfig, schedule: Schedule, seed: int = 0
) -> tuple[optax.GradientTransformation, ...]:
    """Returns the optimizers that a train state holds the states of, in its order.

    Args:
        options: Section `config.unlearn`.
        schedule: Schedule of forget and retain steps.
        seed: As in `optimizers`.

    Returns:
        The optimizer that both kinds of step share, or that of forget and that of retain steps.

    Raises:
        InputError: The warm-up is not shorter than the run.
    """
    descend, ascend = optimizers(options, schedule, seed)
    return (descend,) if options.optimizers == 1 else (ascend, descend)
