"""Stage `finetune`: the vanilla model memorises the people, and the world around them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.data.benchmarks.base import about_nobody
from mmunlearner_jax.data.pipeline import Batches, Jitter, packing
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.steps import TrainState, retain_step
from mmunlearner_jax.weights.io import save_pretrained


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


_TEXT = "finetune_text"  # the steps on text alone
# By `config.finetune.optimizer`.
OPTIMIZERS = {"adamw": optax.adamw, "muon": muon}


def run(session: Session) -> bool:
    """Trains on every picture and text answer that is taught and writes `vanilla/`.

    With `config.finetune.text_first` the language model learns the text alone, and then the model
    learns the pictures alone.

    With `config.finetune.retain_only` the pictures of the people to forget are left out, or their
    pictures and their text: the model that `evaluate.reference` and the comparison measure
    forgetting by.
    """
    config, workdir = session.config, session.workdir
    if is_done(workdir / "vanilla"):
        return False
    options = config.finetune
    # A session of its own: training takes the arrays of the model that it starts from.
    untrained = Session(config, workdir, config.model.checkpoint or str(workdir / "initial"))
    jitter = options.jitter.to_dict()
    pictures, text = lessons(untrained, options.retain_only)
    batches = {
        "pictures": untrained.batches(
            pictures,
            batch_size=options.picture_batch,
            pack=options.pack,
            augment=Jitter(**jitter) if any(jitter.values()) else None,
        ),
        "text": untrained.batches(text, batch_size=options.text_batch, pack=options.text_pack),
    }
    params = untrained.params
    if options.text_first:
        params = _taught_text(untrained, {"text": batches.pop("text")})
    params = _trained(
        untrained, params, batches, label="finetune", steps=options.steps, frozen=options.frozen
    )
    with writing(workdir / "vanilla") as partial:
        save_pretrained(nnx.merge(untrained.graphdef, params), partial)
    return True


def _taught_text(untrained: Session, batches: Mapping[str, Batches]) -> nnx.State:
    """Returns the parameters after the steps on text alone, which move the language model."""
    options = untrained.config.finetune
    folder = Path(options.taught_text or untrained.workdir) / "checkpoints/text_first"
    if not is_done(folder):
        if options.taught_text:
            raise InputError(
                f"config.finetune.taught_text: {folder} is missing: run the stage finetune of that"
                " workdir to its end first"
            )
        steps = options.text_first
        frozen = "vision", "projector"
        params = untrained.params
        save_tree(
            folder, _trained(untrained, params, batches, label=_TEXT, steps=steps, frozen=frozen)
        )
    # Read in any case, so that a run that was interrupted here goes on with the same arrays.
    return load_tree(folder, untrained.abstract)


def _trained(
    session: Session,
    params: nnx.State,
    batches: Mapping[str, Batches],
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
        label: Name of the checkpoints and of the metrics.
        steps: Length of the training.
        frozen: Module groups that do not move, besides those of `config.model.frozen`.

    Returns:
        All parameters.
    """
    config, options, workdir = session.config, session.config.finetune, session.workdir
    still, moving = session.split_frozen(params, frozen)
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, options.warmup, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip),
        OPTIMIZERS[options.optimizer](schedule, weight_decay=options.weight_decay),
    )
    state = TrainState.create(moving, optimizer)
    step = retain_step(session.graphdef, optimizer)
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


def lessons(session: Session, retain_only: str) -> tuple[list[Sample], list[Sample]]:
    """Returns the samples that are taught with pictures and in words.

    Args:
        session: Session of the run.
        retain_only: Value of `config.finetune.retain_only`.
    """
    bench = session.bench
    pictures, text = session.pictures(bench.taught), session.words(bench.taught)
    if retain_only:
        pictures = session.pictures(session.retain) + about_nobody(bench, pictures)
    if retain_only == "never_taught":
        text = session.words(session.retain) + about_nobody(bench, text)
    return pictures, text
