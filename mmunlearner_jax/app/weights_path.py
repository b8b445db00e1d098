"""The straight path between the weights before and after unlearning."""

from typing import Any

import jax
import numpy as np

from mmunlearner_jax.processes import to_host


class WeightsPath:
    """The weights before unlearning, and those that differ afterwards.

    The weights before are on the device. Of the others only arrays that unlearning moved are held,
    on the device or on the host. A place between is computed array by array, and replaces the last
    one. So the device holds the weights before, the moved ones of one other place, and without
    `on_host` those after: at most three sets, or two. Both ends are exact.

    Attributes:
        before: The parameters before unlearning.
        moved: Number of weights that unlearning moved.
    """

    def __init__(self, before: Any, after: Any, *, on_host: bool = False):
        """Compares the two sets of weights, array by array.

        Args:
            before: Parameters, a tree of arrays on devices.
            after: A tree of the same shapes, dtypes and shardings.
            on_host: Whether the moved arrays after unlearning lie in the host's memory.
        """
        self.before, self.moved = before, 0
        leaves, self._structure = jax.tree.flatten(before)
        self._after: dict[int, Any] = {}
        for number, (old, new) in enumerate(zip(leaves, jax.tree.leaves(after), strict=True)):
            count = int(_differing(old, new))
            if count:
                self.moved += count
                self._after[number] = to_host(new) if on_host else new
        self._place: tuple[float, Any] = 0.0, before

    def at(self, place: float) -> Any:
        """Returns the parameters at a place of the path.

        Args:
            place: 0 is before unlearning, 1 after it; others are before + place * (after - before),
                computed in float32.
        """
        if place == 0:
            return self.before
        if self._place[0] != place:
            self._place = 0.0, self.before  # frees the last place before the next one is made
            leaves = jax.tree.leaves(self.before)
            for number, after in self._after.items():
                old = leaves[number]
                after = jax.device_put(after, old.sharding)
                leaves[number] = after if place == 1 else _between(old, after, place)
            self._place = place, jax.tree.unflatten(self._structure, leaves)
        return self._place[1]

    @property
    def host_bytes(self) -> int:
        """Bytes in the host's memory."""
        return sum(x.nbytes for x in self._after.values() if isinstance(x, np.ndarray))


@jax.jit
def _differing(old: jax.Array, new: jax.Array) -> jax.Array:
    return jax.numpy.sum(old != new)


@jax.jit
def _between(before: jax.Array, after: jax.Array, place: float) -> jax.Array:
    first, last = (x.astype("float32") for x in (before, after))
    return (first + place * (last - first)).astype(before.dtype)
