"""Stage `importance`: squared gradients on the forget set and on every preserve set."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.checkpoint import Checkpoints, begin_to_save, load_tree
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.precompile import compiling
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator


def run(session: Session) -> bool:
    """Writes `importance/{forget,pictures,text}`: float32 sums of squares, and counts."""
    if is_done(session.workdir / "importance"):
        return False
    measure(session, session.workdir)
    return True


def sets(session: Session) -> dict[str, list[Sample]]:
    """Returns the forget set and the preserve sets, by name.

    `text` holds the text questions of everyone, the people to forget included: what is written
    about them shall stay.
    """
    whole = {
        "forget": session.pictures(session.forget),
        "pictures": session.retained_pictures(),
        "text": session.retained_words(forgotten=True),
    }
    most = session.config.importance.examples
    return {name: session.drawn(samples, most) for name, samples in whole.items()}


def measure(session: Session, folder: Path) -> None:
    """Writes `importance/` of a model, unless it is there.

    Args:
        session: Of the run.
        folder: Where it is written.
    """
    if is_done(folder / "importance"):
        return
    options, moving, frozen = session.config.importance, session.moving, session.frozen
    add = accumulator(session.graphdef, fisher=options.fisher)
    data: dict[str, Batches] = {}
    with compiling() as compile_program:
        for name, samples in sets(session).items():
            data[name] = session.batches(
                samples,
                batch_size=options.batch_size,
                pack=options.text_pack if name == "text" else options.pack,
                shuffle=False,
                repeat=False,
            )
            example = put_batch(data[name].example(), session.mesh)
            compile_program(add, FisherSums.abstract(moving), moving, example, frozen)
    with writing(folder / "importance") as partial, contextlib.ExitStack() as saving:
        for name, batches in data.items():  # one set is saved while the next is measured
            sums = _measured(session, folder, name, batches, add)
            saving.callback(begin_to_save(partial / name, sums))


def _measured(
    session: Session, folder: Path, name: str, batches: Batches, add: Callable[..., FisherSums]
) -> FisherSums:
    """Returns the sums of one set, from the latest checkpoint on."""
    config = session.config
    data = {"data": iter(batches)}
    sums = FisherSums.zeros(session.moving)
    checkpoints = folder / "checkpoints/importance" / name
    with Checkpoints(checkpoints, every=config.checkpoint_every) as saved:
        sums, start = saved.restore(sums, data)
        with Metrics(
            folder,
            f"importance/{name}",
            total=len(batches),
            start=start,
            profile=config.profile.steps,
            once=packing({name: batches}),
        ) as metrics:
            for i, batch in enumerate(data["data"], start + 1):
                sums = add(sums, session.moving, put_batch(batch, session.mesh), session.frozen)
                metrics.write(i)
                saved.save(i, sums, data)
    return sums


def load_sums(folder: Path, name: str, params: object) -> FisherSums:
    """Reads what this stage wrote for one set.

    Args:
        folder: Where `importance/` lies.
        name: Of the set.
        params: The parameters measured, real or abstract; the sums are sharded like them.
    """
    return load_tree(folder / "importance" / name, FisherSums.abstract(params))
