"""Checkpoints of running stages (Orbax v1): a state and the positions of its data iterators."""

import contextlib
import sys
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


class Checkpoints:
    """The checkpoints of one stage; use it as a context manager.

    A run that is killed at any point and started again goes on from the latest one, and ends
    with the same bits.
    """

    def __init__(self, directory: Path, *, every: int, keep: int = 2):
        """Opens the directory.

        Args:
            directory: Of this stage.
            every: Steps between two checkpoints.
            keep: How many of the latest are kept.
        """
        self._every = every
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
            state: The initial state, whose shapes, dtypes and shardings are restored to.
            data: Grain iterators by name; set to where they were.

        Returns:
            The state and the number of steps it has done; (`state`, 0) without a checkpoint.

        Raises:
            InputError: The latest one is damaged.
        """
        latest = self._latest()
        if latest is None:
            return state, 0
        leaves, treedef = jax.tree.flatten(state)
        abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        folder = Path(latest.path)
        mend = (
            f"remove {folder} and run the same command again: it goes on from the checkpoint"
            " before, or begins anew, and ends with the same bits"
        )
        with artefacts.reading(folder, mend=mend):
            restored = self._checkpointer.load_checkpointables(
                latest.step, {"state": abstract, **data}
            )
        # What belonged to no device (an optimizer's step count) must not be tied to one now.
        restored = [
            new if old.committed else jnp.asarray(jax.device_get(new))
            for new, old in zip(restored["state"], leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, restored), latest.step

    def save(self, step: int, state: Any, data: Mapping[str, Any]) -> None:
        """Saves if it is time to, or if the machine goes away.

        Raises:
            Preempted: It does; the step is saved.
        """
        last = preemption.due()
        # Not Orbax's rule of when: it asks whether the machine goes away, of steps by its number.
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
        """The latest checkpoint with its checksums; those without were being written at a kill."""
        while latest := self._checkpointer.latest:
            if artefacts.is_sealed(Path(latest.path)):
                return latest
            if is_first():
                print(f"{latest.path}: is not complete and is passed over", file=sys.stderr)
            self._checkpointer.delete(latest.step)
        return None


def begin_to_save(directory: Path, tree: Any) -> Callable[[], Any]:
    """Saves a pytree of arrays while the program goes on; what is returned waits for it.

    It is for folders within an artefact, see `artefacts.writing`.
    """
    return ocp.save_async(plain(directory), jax.tree.leaves(tree), overwrite=True).result


def save_tree(directory: Path, tree: Any) -> None:
    """Saves a pytree of arrays, whole or not at all; an older one is replaced."""
    with artefacts.writing(directory) as partial:
        begin_to_save(partial, tree)()


def load_tree(directory: Path, like: Any) -> Any:
    """Loads what `save_tree` wrote.

    Args:
        directory: Of the tree.
        like: Arrays or `jax.ShapeDtypeStruct` with shardings, in the structure that was saved.

    Raises:
        InputError: There is none, it is damaged, or it was written for another model.
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
