"""Training from some parameters on, or from the latest checkpoint: stages `align`, `finetune`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from flax import nnx

from mmunlearner_jax.checkpoint import Checkpoints
from mmunlearner_jax.config.descent import TrainingConfig
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.rounding import ROUNDINGS
from mmunlearner_jax.unlearn.scoring import Batch
from mmunlearner_jax.unlearn.steps import TrainState, descent_step


def muon(rate: optax.Schedule, *, weight_decay: float) -> optax.GradientTransformation:
    """Muon for the matrices of stacked layers, each layer's by itself, and Adam for the rest.

    A model that is trained from nothing learns the same in half the steps of AdamW.

    Args:
        rate: Learning rate of both, as an update's root mean square is scaled to Adam's.
        weight_decay: Likewise.

    Source: Jordan et al. 2024; the scale is that of Liu et al. 2025 (arXiv 2502.16982).
    """

    def matrices(params: Any) -> Any:
        layered = optax.contrib.MuonDimensionNumbers((1,), (2,))  # [layers, in, out]
        return jax.tree.map(lambda p: layered if p.ndim == 3 else None, params)

    return optax.contrib.muon(
        rate,
        ns_steps=3,
        preconditioning="aol",  # saves steps of the iteration
        consistent_rms=0.2,
        weight_decay=weight_decay,
        adam_b2=0.95,
        adam_weight_decay=weight_decay,
        muon_weight_dimension_numbers=matrices,
    )


# By `optimizer` of `config.align` and `config.finetune`.
OPTIMIZERS = {"adamw": optax.adamw, "muon": muon}


def optimizer_of(options: TrainingConfig, steps: int, seed: int) -> optax.GradientTransformation:
    """Returns the optimizer of a training.

    Args:
        options: Optimizer and learning rate.
        steps: Length of the training.
        seed: Seed of the rounding.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, options.warmup, steps)
    chained = optax.chain(
        optax.clip_by_global_norm(options.clip),
        OPTIMIZERS[options.optimizer](schedule, weight_decay=options.weight_decay),
    )
    return ROUNDINGS[options.rounding](chained, seed=seed)


def train(
    session: Session,
    params: nnx.State,
    batches: Mapping[str, Batches],
    value: Callable[[Any, Sequence[Batch]], jax.Array],
    options: TrainingConfig,
    *,
    label: str,
    steps: int,
    frozen: Collection[str],
) -> nnx.State:
    """Trains from some parameters, or from the latest checkpoint on.

    Args:
        session: Session of the run.
        params: All parameters. The arrays of those that move are taken.
        batches: A step learns a batch of each.
        value: What steps lower, see `unlearn.steps.descent_step`.
        options: Optimizer and learning rate.
        label: Name of the checkpoints and of the metrics.
        steps: Length of the training.
        frozen: Module groups that do not move, besides those of `config.model.frozen`.

    Returns:
        All parameters.
    """
    config, workdir = session.config, session.workdir
    still, moving = session.split_frozen(params, frozen)
    optimizer = optimizer_of(options, steps, config.seed)
    state = TrainState.create(moving, optimizer)
    step = descent_step(value, optimizer)
    data = {name: iter(of_kind) for name, of_kind in batches.items()}
    with Checkpoints(workdir / "checkpoints" / label, every=config.checkpoint_every) as saved:
        state, start = saved.restore(state, data)
        with Metrics(
            workdir,
            label,
            total=steps,
            start=start,
            saved=config.checkpoint_every,
            profile=config.profile.steps,
            once=packing(batches),
        ) as metrics:
            for i in range(start + 1, steps + 1):
                taken = [put_batch(next(it), session.mesh) for it in data.values()]
                state, loss = step(state, taken, still)
                metrics.write(i, loss=loss)
                saved.save(i, state, data)
    return nnx.merge_state(state.params, still)
