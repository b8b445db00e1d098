"""Stage `importance`: squared gradients on the forget set and on every preserve set."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from mmunlearner_jax.ahead import compiling
from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.checkpoint import Checkpoints, begin_to_save, load_tree
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages import setup
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator


def sets(at: setup.Setup, examples: int) -> dict[str, list[Sample]]:
    """The forget set and the preserve sets, by name.

    `text` holds the text questions of everyone, the people to forget included: what is written
    about them shall stay.

    Args:
        at: model and data.
        examples: how many of each at most, drawn by the seed; 0: all.
    """
    whole = {
        "forget": at.pictures(at.forget),
        "pictures": at.pictures(at.retain),
        "text": at.words(at.bench.everyone),
    }
    return {name: at.drawn(samples, examples) for name, samples in whole.items()}


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `importance/{forget,pictures,text}`: float32 sums of squares, and counts."""
    if is_done(workdir / "importance"):
        return False
    measure(config, workdir, setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir)))
    return True


def measure(config: ConfigDict, workdir: Path, at: setup.Setup) -> None:
    """Writes `importance/` of a model, unless it is there.

    Args:
        config: of the run.
        workdir: where it is written.
        at: the model beside its data.
    """
    if is_done(workdir / "importance"):
        return
    options = config.importance
    add = accumulator(at.graphdef, fisher=options.fisher)
    given: dict[str, Batches] = {}
    with compiling() as ahead:
        for name, samples in sets(at, options.examples).items():
            given[name] = at.batches(
                samples,
                batch_size=options.batch_size,
                pack=options.text_pack if name == "text" else options.pack,
                shuffle=False,
                repeat=False,
            )
            example = put_batch(given[name].example(), at.mesh)
            ahead(add, FisherSums.abstract(at.moving), at.moving, example, at.frozen)
    with writing(workdir / "importance") as partial, contextlib.ExitStack() as saving:
        for name, batches in given.items():  # one set is saved while the next is measured
            sums = _measured(config, workdir, at, name, batches, add)
            saving.callback(begin_to_save(partial / name, sums))


def _measured(
    config: ConfigDict,
    workdir: Path,
    at: setup.Setup,
    name: str,
    batches: Batches,
    add: Callable[..., FisherSums],
) -> FisherSums:
    """The sums of one set, from the latest checkpoint on."""
    data = {"data": iter(batches)}
    sums = FisherSums.zeros(at.moving)
    folder = workdir / "checkpoints/importance" / name
    with Checkpoints(folder, every=config.checkpoint_every) as saved:
        sums, start = saved.restore(sums, data)
        with Metrics(
            workdir,
            f"importance/{name}",
            total=len(batches),
            start=start,
            profile=config.profile.steps,
            once=packing({name: batches}),
        ) as metrics:
            for i, batch in enumerate(data["data"], start + 1):
                sums = add(sums, at.moving, put_batch(batch, at.mesh), at.frozen)
                metrics.write(i)
                saved.save(i, sums, data)
    return sums


def load_sums(workdir: Path, name: str, params: object) -> FisherSums:
    """Reads what this stage wrote for one set, sharded like the parameters measured."""
    return load_tree(workdir / "importance" / name, FisherSums.abstract(params))
