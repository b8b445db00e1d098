"""Checkpoints of a stage in progress (Orbax v1): its state and the positions of its data."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from mmunlearner_jax import artefacts, preemption
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import plain
from mmunlearner_jax.processes import is_first
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
        self._every, self._name = every, directory.name
        self._checkpointer = ocp.training.Checkpointer(
            plain(directory),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(preemption.saved_by_loop())
        self._stack.callback(self._checkpointer.close)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

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
        latest = self._latest()
        if latest is None:
            return state, 0
        leaves, treedef = jax.tree.flatten(state)
        abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        folder = Path(latest.path)
        mend = (
            f"remove {folder} and run the same command again: it continues from the previous"
            " checkpoint, or from the beginning, and gives the same bits"
        )
        with artefacts.reading(folder, mend=mend):
            restored = self._checkpointer.load_checkpointables(
                latest.step, {"state": abstract, **data}
            )
        # Arrays that were on no fixed device (an optimizer's step count) must be so again.
        restored = [
            new if old.committed else jnp.asarray(jax.device_get(new))
            for new, old in zip(restored["state"], leaves, strict=True)
        ]
        say(f"{self._name}: goes on after step {latest.step:,}")
        return jax.tree.unflatten(treedef, restored), latest.step

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
        # Orbax's own rule is bypassed, as it would query the preemption service by step number.
        if last or step % self._every == 0:
            latest = self._checkpointer.latest
            if latest is None or latest.step != step:
                leaves = jax.tree.leaves(state)
                self._checkpointer.save_checkpointables(step, {"state": leaves, **data}, force=True)
                if is_first() and (saved := self._checkpointer.latest):
                    artefacts.seal(Path(saved.path))
                last = preemption.due_while_saving(step) or last
        if last:
            raise preemption.Preempted

    def _latest(self) -> ocp.training.CheckpointMetadata | None:
        """Returns the latest complete checkpoint; deletes newer ones that a kill interrupted."""
        while latest := self._checkpointer.latest:
            if artefacts.is_sealed(Path(latest.path)):
                return latest
            say(f"{latest.path}: is not complete and is ignored")
            self._checkpointer.delete(latest.step)
        return None


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

    Use it for folders within an artefact, see `artefacts.writing`.
    """
    return ocp.save_async(plain(directory), jax.tree.leaves(tree), overwrite=True).result


def save_tree(directory: Path, tree: Any) -> None:
    """Saves a pytree of arrays as a whole or not at all; replaces an older one."""
    with artefacts.writing(directory) as partial:
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
    wanted = [(tuple(x.shape), str(x.dtype)) for x in leaves]
    abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
    with artefacts.reading(directory):
        stored = jax.tree.leaves(ocp.metadata(plain(directory)).metadata)
        if [(tuple(x.shape), str(x.dtype)) for x in stored] != wanted:
            raise InputError(
                f"{directory} was written for another model: its arrays differ in number, shape or"
                " dtype; remove it and run its stage again"
            )
        return jax.tree.unflatten(treedef, ocp.load(plain(directory), abstract))
