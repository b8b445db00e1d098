"""Stage `importance`: mean squared gradients on the forget set and on every preserve set."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.checkpoint import Checkpoints, begin_to_save, load_tree, open_tree
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.models.packing import Sizes
from mmunlearner_jax.precompile import compiling
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages.ascent_path import ascent_path
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator


def run(session: Session) -> bool:
    """Writes `importance/{forget,pictures,text}`: float32 sums of squared gradients, and counts.

    A preserve set with which no module group is compared (`config.importance.preserve`) is left
    out.
    """
    if is_done(session.workdir / "importance"):
        return False
    measure(session, session.workdir)
    return True


Sets = Callable[[Session], dict[str, list[Sample]]]


def sets(session: Session) -> dict[str, list[Sample]]:
    """Returns the forget set and the preserve sets, by name.

    `text` holds the questions in words about everyone, the people to forget included, because the
    model should keep what it knows about them in words; unless `config.data.forget_words`.
    """
    whole = {
        "forget": session.pictures(session.forget),
        "pictures": session.retained_pictures(),
        "text": session.retained_words(forgotten=not session.config.data.forget_words),
    }
    return _measured_sets(session, whole)


def sets_of_others(session: Session) -> dict[str, list[Sample]]:
    """Returns the sets as they would be if other people were to be forgotten.

    The seed draws retained people, as many as the forget split has. The pictures of the people to
    forget are in no set.
    """
    people, retained = session.bench.people(session.forget), session.bench.people(session.retain)
    rng = np.random.default_rng(session.config.seed)
    others = {*rng.choice(sorted(retained), min(len(people), len(retained) - 1), replace=False)}
    pictures = session.retained_pictures()
    whole = {
        "forget": [sample for sample in pictures if sample.person in others],
        "pictures": [sample for sample in pictures if sample.person not in others],
        "text": session.retained_words(forgotten=not session.config.data.forget_words),
    }
    return _measured_sets(session, whole)


def _measured_sets(session: Session, whole: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """Returns the sets that the config uses, each reduced to as many samples as it says."""
    options = session.config.importance
    names = ("forget", *options.preserve.used)
    return {name: session.drawn(whole[name], options.examples) for name in names}


def measure(session: Session, folder: Path, sets: Sets = sets) -> None:
    """Writes a model's `importance/`, unless it exists.

    Args:
        session: Session of the run.
        folder: Folder in which `importance/` is written.
        sets: Returns the samples of the forget set and of the preserve sets.
    """
    if is_done(folder / "importance"):
        return
    options, moving, frozen = session.config.importance, session.moving, session.frozen
    data: dict[str, Batches] = {}
    steps: dict[str, Callable[..., FisherSums]] = {}

    @functools.cache  # sets of equal sizes share a program
    def step(sizes: Sizes | None) -> Callable[..., FisherSums]:
        return accumulator(
            session.graphdef, fisher=options.fisher, sizes=sizes, weights=options.weights
        )

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
            steps[name] = step(data[name].sizes)
            compile_program(steps[name], FisherSums.abstract(moving), moving, example, frozen)
    walk = ascent_path(session) if options.path.points else lambda: iter([session.moving])
    with writing(folder / "importance") as partial, contextlib.ExitStack() as saving:
        for name, batches in data.items():  # a set is saved while the next one is measured
            # No name holds the sums: at 7B, two sets' do not fit a GPU.
            measured = functools.partial(
                _measured, session, folder, name, batches, steps[name], walk()
            )
            saving.callback(begin_to_save(partial / name, measured()))


def _measured(
    session: Session,
    folder: Path,
    name: str,
    batches: Batches,
    add: Callable[..., FisherSums],
    places: Iterator[Any],
) -> FisherSums:
    """Returns the sums of one set over all points; resumes from the latest checkpoint."""
    config, whole = session.config, len(batches)
    data = {"data": iter(batches)}
    sums = FisherSums.zeros(session.moving)
    checkpoints = folder / "checkpoints/importance" / name
    with Checkpoints(checkpoints, every=config.checkpoint_every) as saved:
        sums, start = saved.restore(sums, data)
        with Metrics(
            folder,
            f"importance/{name}",
            total=whole * max(config.importance.path.points, 1),
            start=start,
            saved=config.checkpoint_every,
            profile=config.profile.steps,
            once=packing({name: batches}),
        ) as metrics:
            for number, moving in enumerate(places):
                begin = number * whole
                if start >= begin + whole:
                    continue
                if number and start <= begin:
                    data["data"] = iter(batches)
                for i, batch in enumerate(data["data"], max(start, begin) + 1):
                    sums = add(sums, moving, put_batch(batch, session.mesh), session.frozen)
                    # A copy, as the next step takes the sums; the bar waits for it.
                    metrics.write(i, count=jnp.copy(sums.count))
                    saved.save(i, sums, data)
    return sums


def load_sums(folder: Path, name: str, params: object) -> FisherSums:
    """Reads the sums that this stage wrote for one set.

    Args:
        folder: Folder that holds `importance/`.
        name: Name of the set.
        params: The moving parameters, real or abstract; the sums are sharded like them.
    """
    return load_tree(folder / "importance" / name, FisherSums.abstract(params))


class StoredSums(NamedTuple):
    """The sums that this stage wrote for one set, of which parts can be read.

    Attributes:
        count: Number of examples (or batches) in the sums.
        load: Loads arrays by the numbers of their parameters.
    """

    count: float
    load: Callable[[Collection[int]], list[jax.Array]]

    def mean(self, numbers: Collection[int]) -> list[jax.Array]:
        """Returns the importances of some parameters, see `FisherSums.mean`."""
        return FisherSums(self.load(numbers), jnp.float32(self.count)).mean()


@contextlib.contextmanager
def open_sums(folder: Path, name: str, params: object) -> Iterator[StoredSums]:
    """Opens what `load_sums` reads as a whole.

    Args:
        folder: Folder that holds `importance/`.
        name: Name of the set.
        params: The moving parameters, as for `load_sums`.
    """
    like = FisherSums.abstract(params)
    with open_tree(folder / "importance" / name, like) as load:
        (count,) = load([len(jax.tree.leaves(like)) - 1])
        yield StoredSums(float(count), load)
