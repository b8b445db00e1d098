"""Stage `finetune`: the vanilla model memorises the people, and the world around them."""

from pathlib import Path

import optax
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.checkpoint import Checkpoints
from mmunlearner_jax.data.pipeline import Jitter
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages import setup
from mmunlearner_jax.unlearn.steps import TrainState, descent_step
from mmunlearner_jax.weights.io import save_pretrained


def run(config: ConfigDict, workdir: Path) -> bool:
    """Trains on every picture and text answer that is taught and writes `vanilla/`."""
    if (workdir / "vanilla").exists():
        return False
    options = config.finetune
    at = setup.load(config, workdir, config.model.checkpoint or str(workdir / "initial"))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.warmup, options.steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.adamw(schedule, weight_decay=options.weight_decay),
    )
    state = TrainState.create(at.params, optimizer)
    step = descent_step(at.graphdef, optimizer)
    data = {
        "pictures": iter(
            at.batches(
                at.bench.training(at.bench.taught),
                batch_size=options.picture_batch,
                augment=Jitter(**options.jitter) if options.jitter else None,
            )
        ),
        "text": iter(
            at.batches(at.bench.text_training(at.bench.taught), batch_size=options.text_batch)
        ),
    }
    with Checkpoints(workdir / "checkpoints/finetune", every=config.checkpoint_every) as saved:
        state, start = saved.restore(state, data)
        with Metrics(
            workdir, "finetune", total=options.steps, start=start, saved=config.checkpoint_every
        ) as metrics:
            for i in range(start + 1, options.steps + 1):
                state, loss = step(state, [put_batch(next(it), at.mesh) for it in data.values()])
                metrics.write(i, loss=loss)
                saved.save(i, state, data)
    save_pretrained(nnx.merge(at.graphdef, state.params), workdir / "vanilla")
    return True
