"""Stage `finetune`: the vanilla model memorises the people, and the world around them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.checkpoint import load_tree, save_tree
from mmunlearner_jax.config.jitter import JitterConfig
from mmunlearner_jax.data.benchmarks.base import about_nobody
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session
from mmunlearner_jax.training import train
from mmunlearner_jax.unlearn.scoring import Batch
from mmunlearner_jax.unlearn.steps import mean_loss
from mmunlearner_jax.weights.io import save_pretrained

_TEXT = "finetune_text"  # the steps on text alone


def run(session: Session) -> bool:
    """Trains on every picture and text answer that is taught and writes `vanilla/`.

    Training starts from what the stage `align` wrote, if it was run.

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
    aligned = "align" in config.stages or is_done(workdir / "aligned")
    untrained = untrained_session(session, aligned=aligned)
    pictures, text = lessons(untrained, options.retain_only)
    batches = {
        "pictures": untrained.batches(
            pictures,
            batch_size=options.picture_batch,
            pack=options.pack,
            augment=augmentation(options.jitter),
        ),
    }
    if options.text_batch:
        batches["text"] = untrained.batches(
            text, batch_size=options.text_batch, pack=options.text_pack
        )
    params = untrained.params
    if options.text_first:
        params = _taught_text(untrained, {"text": batches.pop("text")})
    params = _trained(
        untrained, params, batches, label="finetune", steps=options.steps, frozen=options.frozen
    )
    with writing(workdir / "vanilla") as partial:
        save_pretrained(nnx.merge(untrained.graphdef, params), partial)
    return True


def untrained_session(session: Session, *, aligned: bool = False) -> Session:
    """Returns a session of the model that training starts from, whose arrays it takes.

    Args:
        session: Session of the run.
        aligned: Whether it is the model that the stage `align` wrote.
    """
    config, workdir = session.config, session.workdir
    initial = config.model.checkpoint or str(workdir / "initial")
    return Session(config, workdir, str(workdir / "aligned") if aligned else initial)


def augmentation(options: JitterConfig) -> Jitter | None:
    """Returns the random changes to taught pictures; None where there are none."""
    jitter = options.to_dict()
    return Jitter(**jitter) if any(jitter.values()) else None


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
    language, _ = untrained.split_frozen(load_tree(folder, untrained.abstract), ("language",))
    # Another run's vision and projector may have been aligned with other pictures.
    _, others = untrained.split_frozen(untrained.params, ("language",))
    return nnx.merge_state(language, others)


def _trained(
    session: Session,
    params: nnx.State,
    batches: Mapping[str, Batches],
    *,
    label: str,
    steps: int,
    frozen: Collection[str],
) -> nnx.State:
    """Returns all parameters after a training on answers, see `training.train`."""

    def value(params: Any, taken: Sequence[Batch]) -> jax.Array:
        return mean_loss(session.graphdef, params, taken)

    options = session.config.finetune
    return train(session, params, batches, value, options, label=label, steps=steps, frozen=frozen)


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
