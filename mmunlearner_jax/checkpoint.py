"""Checkpoints of a stage in progress (Orbax v1): its state and the positions of its data."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from mmunlearner_jax import artefacts, preemption
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import plain
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.progress import say


class Checkpoints:
    """The checkpoints of one stage; use it as a context manager.

    A run can be killed at any time. When it is started again, it continues from the latest
    checkpoint, and its results have the same bits.
    """

    def __init__(self, directory: Path, *, every: int, keep: int = 2):
        """Opens the directory.

        Args:
            directory: Folder of the stage's checkpoints.
            every: Steps between two checkpoints.
            keep: Number of latest checkpoints to keep.
        """
        plain(directory)
        self._directory, self._every, self._keep = directory, every, keep

    def __enter__(self) -> "Checkpoints":
        self._loop = preemption.saved_by_loop()
        self._loop.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._loop.__exit__(*exc)

    def restore(self, state: Any, data: Mapping[str, Any]) -> tuple[Any, int]:
        """Restores the latest checkpoint, if there is one.

        Args:
            state: The initial state, which gives shapes, dtypes and shardings.
            data: Grain iterators by name; they are set to their saved positions.

        Returns:
            The restored state and its number of steps; (`state`, 0) without a checkpoint.

        Raises:
            InputError: The latest checkpoint is damaged.
        """
        step = self._remove_interrupted()
        if not step:
            return state, 0
        leaves, treedef = jax.tree.flatten(state)
        abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        folder = self._directory / str(step)
        mend = (
            f"remove {folder} and run the same command again: it continues from the previous"
            " checkpoint, or from the beginning, and gives the same bits"
        )
        with artefacts.reading(folder, mend=mend):
            restored = ocp.load_checkpointables(plain(folder), {"state": abstract, **data})
        # Arrays that were on no fixed device (an optimizer's step count) must be so again.
        restored = [
            new if old.committed else jnp.asarray(jax.device_get(new))
            for new, old in zip(restored["state"], leaves, strict=True)
        ]
        say(f"{self._directory.name}: goes on after step {step:,}")
        return jax.tree.unflatten(treedef, restored), step

    def save(self, step: int, state: Any, data: Mapping[str, Any]) -> None:
        """Saves every `every` steps, and if the run was asked to end.

        Args:
            step: Number of steps done.
            state: The state after this step.
            data: Grain iterators by name.

        Raises:
            Preempted: The run was asked to end; the step is saved.
        """
        last = preemption.due()
        if last or step % self._every == 0:
            if step not in self._steps():
                # Not Orbax's Checkpointer: it queries the preemption service by its own numbers,
                # and processes can agree on a step only by numbers that never decrease.
                with artefacts.writing(self._directory / str(step), made=False) as partial:
                    checkpointables = {"state": jax.tree.leaves(state), **data}
                    ocp.save_checkpointables(plain(partial), checkpointables)
                if is_first():
                    for old in self._steps()[: -self._keep]:
                        artefacts.remove(self._directory / str(old))
            last = preemption.due() or last  # the request may have come while the step was saved
        if last:
            raise preemption.Preempted

    def _steps(self) -> list[int]:
        """Returns the numbers of the steps that have a checkpoint, in increasing order."""
        return sorted(int(path.name) for path in self._directory.glob("*") if path.name.isdigit())

    def _remove_interrupted(self) -> int:
        """Removes what a kill left unfinished; returns the latest step, 0 without a checkpoint."""
        if is_first():
            artefacts.remove_partial(self._directory)
            for folder in (self._directory / str(step) for step in self._steps()):
                if not artefacts.is_sealed(folder):
                    say(f"{folder}: is not complete and is removed")
                    artefacts.remove(folder)
        wait(f"{self._directory}: only whole checkpoints are left")
        return max(self._steps(), default=0)


def latest_step(directory: Path) -> int:
    """Returns the step after which a run goes on, 0 without a checkpoint; opens none.

    Args:
        directory: Folder of a stage's checkpoints.
    """
    folders = directory.iterdir() if directory.is_dir() else ()
    steps = (int(p.name) for p in folders if p.name.isdecimal() and artefacts.is_sealed(p))
    return max(steps, default=0)


def begin_to_save(directory: Path, tree: Any) -> Callable[[], Any]:
    """Begins to save a pytree of arrays; returns a function that waits until it is saved.

    Use it for folders within an artefact, see `artefacts.writing`. The directory must not exist.
    """
    return ocp.save_async(plain(directory), jax.tree.leaves(tree)).result


def save_tree(directory: Path, tree: Any) -> None:
    """Saves a pytree of arrays as a whole or not at all; replaces an older one."""
    with artefacts.writing(directory, made=False) as partial:
        begin_to_save(partial, tree)()


def load_tree(directory: Path, like: Any) -> Any:
    """Loads a pytree that `save_tree` wrote.

    Args:
        directory: Folder of the pytree.
        like: Arrays or `jax.ShapeDtypeStruct` with shardings, in the structure that was saved.

    Raises:
        InputError: The folder is missing or damaged, or was written for another model.
    """
    leaves, treedef = jax.tree.flatten(like)
    with open_tree(directory, like) as load:
        return jax.tree.unflatten(treedef, load(range(len(leaves))))


@contextlib.contextmanager
def open_tree(directory: Path, like: Any) -> Iterator[Callable[[Collection[int]], list[jax.Array]]]:
    """Opens a pytree that `save_tree` wrote, to load some arrays at a time.

    Args:
        directory: Folder of the pytree.
        like: As in `load_tree`.

    Yields:
        A function that loads the arrays of some numbers, counted over the leaves of `like`.

    Raises:
        InputError: As `load_tree`.
    """
    leaves = jax.tree.leaves(like)
    wanted = [(tuple(x.shape), str(x.dtype)) for x in leaves]
    abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]

    def load(numbers: Collection[int]) -> list[jax.Array]:
        chosen = [x if n in numbers else ... for n, x in enumerate(abstract)]
        loaded = ocp.load(plain(directory), chosen)
        return [loaded[n] for n in numbers]

    with artefacts.reading(directory):
        stored = jax.tree.leaves(ocp.metadata(plain(directory)).metadata)
        if [(tuple(x.shape), str(x.dtype)) for x in stored] != wanted:
            raise InputError(
                f"{directory} was written for another model: its arrays differ in number, shape or"
                " dtype; remove it and run its stage again"
            )
        yield load
