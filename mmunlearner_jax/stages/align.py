"""Stage `align`: pictures get the place of their captions in a pretrained decoder."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.config.align import AlignConfig
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.finetune import augmentation, lessons, untrained_session
from mmunlearner_jax.training import train
from mmunlearner_jax.unlearn.alignment import alignment_loss
from mmunlearner_jax.unlearn.scoring import Batch
from mmunlearner_jax.unlearn.steps import mean_loss
from mmunlearner_jax.weights.io import save_pretrained


def run(session: Session) -> bool:
    """Trains vision tower and projector on captions and writes `aligned/`.

    The caption of a picture is the first answer that is taught about it. With
    `config.finetune.retain_only` the pictures of the people to forget are left out.
    """
    config, workdir = session.config, session.workdir
    if is_done(workdir / "aligned"):
        return False
    options = config.align
    untrained = untrained_session(session)
    pictures, _ = lessons(untrained, config.finetune.retain_only)
    batches = untrained.batches(
        captions(pictures),
        batch_size=options.batch,
        pack=1,
        augment=augmentation(options.jitter),
        encoder=untrained.answers,
    )
    params = train(
        untrained,
        untrained.params,
        {"pictures": batches},
        loss_of(untrained, options),
        options,
        label="align",
        steps=options.steps,
        frozen=("language",),
    )
    with writing(workdir / "aligned") as partial:
        save_pretrained(nnx.merge(untrained.graphdef, params), partial)
    return True


def captions(lessons: Sequence[Sample]) -> list[Sample]:
    """Returns the first lesson about each picture, in order."""
    first: dict[bytes | None, Sample] = {}
    for lesson in lessons:
        first.setdefault(lesson.image, lesson)
    return list(first.values())


def loss_of(session: Session, options: AlignConfig) -> Callable[..., jax.Array]:
    """Returns what steps lower, a function of all parameters and one batch."""
    if options.loss == "caption":
        return functools.partial(mean_loss, session.graphdef)

    def value(params: Any, batches: Sequence[Batch]) -> jax.Array:
        (batch,) = batches
        return alignment_loss(
            session.graphdef,
            params,
            batch,
            contrast=options.contrast,
            temperature=options.temperature,
        )

    return value
