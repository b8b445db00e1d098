"""The saliency mask: which weights matter more for what is to be forgotten.

Trees have the structure of the parameters. `names` is such a tree of Hugging Face names, in which
`{layer}` stands for the index along the first axis of stacked layers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.processes import to_host

Tree = Any
Normalise = Literal["none", "group"]


def saliency_mask(
    forget: Tree, preserve: Tree, *, threshold: float = 1.0, eps: float = 0.0
) -> Tree:
    """True where `(forget + eps) / (preserve + eps) >= threshold`, in float32.

    With `eps=0` a weight that matters for neither set is protected (0/0 is not a number, and
    compares False), one that matters for the forget set alone is chosen. The published code adds
    1e-15, which in float32 chooses the weights where both are 0 (D-05).

    Args:
        forget: Importance for the forget set.
        preserve: Importance for the preserve set, a tree of the same structure and shapes.
        threshold: Positive; 1 is the published value.
        eps: Added to both sides.

    Returns:
        A tree of bool arrays.

    Raises:
        ValueError: The trees differ, or the threshold is not a positive number.
    """
    if not (threshold > 0 and math.isfinite(threshold)):
        raise ValueError(f"threshold is {threshold}: give a positive number")
    if jax.tree.map(jnp.shape, forget) != jax.tree.map(jnp.shape, preserve):
        raise ValueError("forget and preserve are importances of different models")

    def chosen(f: jax.Array, p: jax.Array) -> jax.Array:
        f, p = f.astype(jnp.float32), p.astype(jnp.float32)
        return (f + eps) / (p + eps) >= threshold

    return jax.tree.map(chosen, forget, preserve)


def preserve_importance(
    sets: Mapping[str, tuple[Tree, float]],
    use: Mapping[str, Sequence[str]],
    groups: Tree,
    *,
    normalise: Normalise = "none",
) -> Tree:
    """Joins the preserve sets, each module group with its own choice of them.

    `"none"` pools them: the mean over the examples of all its sets, as if their loaders were
    concatenated. `"group"` first scales each set to unit mass within the module group and then
    averages, so that a set the model fits better does not count for less (D-07).

    Args:
        sets: Name -> (importance tree, number of examples in it).
        use: Module group -> names of its preserve sets.
        groups: A tree of group names, one per leaf.
        normalise: See above.

    Raises:
        InputError: A group names an unknown set, or none.
    """
    for group, names in use.items():
        unknown = [n for n in names if n not in sets]
        if unknown or not names:
            raise InputError(
                f"config.importance.preserve[{group!r}] names {unknown or 'no set'}: choose from"
                f" {sorted(sets)}"
            )
    if normalise == "group":
        trees = {k: unit_mass(tree, groups) for k, (tree, _) in sets.items()}
        weight = dict.fromkeys(sets, 1.0)
    else:
        trees = {k: tree for k, (tree, _) in sets.items()}
        weight = {k: float(count) for k, (_, count) in sets.items()}

    order = list(trees)

    def join(group: str, *leaves: jax.Array) -> jax.Array:
        total, mass = jnp.zeros(()), 0.0
        for name, leaf in zip(order, leaves, strict=True):
            if name in use[group]:
                total, mass = total + weight[name] * leaf, mass + weight[name]
        return total / mass

    return jax.tree.map(join, groups, *trees.values())


def unit_mass(tree: Tree, groups: Tree) -> Tree:
    """Scales an importance so that it sums to 1 within every module group that is not all 0."""
    mass: dict[str, jax.Array] = {}
    for group, leaf in zip(jax.tree.leaves(groups), jax.tree.leaves(tree), strict=True):
        mass[group] = mass.get(group, jnp.zeros(())) + jnp.sum(leaf)
    return jax.tree.map(lambda g, leaf: leaf / jnp.where(mass[g] > 0, mass[g], 1), groups, tree)


def cover(mask: Tree, names: Tree, pattern: str, *, uncovered: bool) -> Tree:
    """Keeps the mask where a name matches `pattern`, and fills the other leaves.

    `uncovered=False` is default-deny: no mask entry, no forget update (D-02). `True` reproduces the
    published code, which lets gradient ascent move everything it has no mask for.

    Raises:
        InputError: The mask would let no weight move.
    """

    @jax.jit  # one program instead of one a leaf
    def covered(mask: Tree) -> tuple[Tree, jax.Array]:
        kept = jax.tree.map(
            lambda m, name: m if re.search(pattern, name) else jnp.full_like(m, uncovered),
            mask,
            names,
        )
        return kept, jnp.any(jnp.array([jnp.any(m) for m in jax.tree.leaves(kept)]))

    mask, some = covered(mask)
    if not some:
        raise InputError(
            f"the mask covers no weight (config.mask.cover={pattern!r}): lower"
            " config.mask.threshold or widen the pattern"
        )
    return mask


def all_true(params: Tree) -> Tree:
    """Returns a mask that covers nothing: True everywhere, sharded like the parameters."""
    return jax.tree.map(lambda p: jnp.ones_like(p, bool), params)


def random_mask(mask: Tree, seed: int) -> Tree:
    """A control: as many True per array, at places drawn at random."""
    # On the host: a device would sort as many keys as there are weights.
    rng = np.random.default_rng(seed)

    def shuffled(m: jax.Array) -> jax.Array:
        drawn = to_host(m).flatten()
        rng.shuffle(drawn)
        return _placed(drawn, m)

    return jax.tree.map(shuffled, mask)


def top_mask(importance: Tree, mask: Tree) -> Tree:
    """A control: as many True per array, where an importance is greatest.

    Args:
        importance: A tree of the structure and shapes of the mask.
        mask: What tells how many.
    """

    def greatest(x: jax.Array, m: jax.Array) -> jax.Array:
        flat, count = to_host(x).ravel(), int(to_host(m).sum())
        chosen = np.zeros(flat.shape, bool)
        chosen[np.argpartition(-flat, count - 1)[:count]] = True
        return _placed(chosen, m)

    return jax.tree.map(greatest, importance, mask)


def _placed(values: np.ndarray, like: jax.Array) -> jax.Array:
    """Flat values of the host, shaped and sharded like an array."""
    values = values.reshape(like.shape)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: values[index])


def density(mask: Tree, names: Tree, groups: Tree) -> dict[str, Any]:
    """Fractions of True, over everything, per module group and per block.

    Returns:
        `{"density": x, "by_module": {group: x}, "by_block": {name: x}}`, a block being a layer's
        projection or any other matrix, by its Hugging Face name.
    """
    by_block: dict[str, tuple[float, int]] = {}
    by_module: dict[str, tuple[float, int]] = {}

    @jax.jit
    def counted(mask: Tree) -> Tree:
        def ones(leaf: jax.Array, name: str) -> jax.Array:
            rows = leaf.reshape((leaf.shape[0] if "{layer}" in name else 1), -1)
            return jnp.sum(rows, axis=1, dtype=jnp.float32)

        return jax.tree.map(ones, mask, names)

    columns = (jax.tree.leaves(t) for t in (mask, names, groups, to_host(counted(mask))))
    for leaf, name, group, ones in zip(*columns, strict=True):
        for layer, n in enumerate(ones):
            by_block[name.replace("{layer}", str(layer))] = (float(n), leaf.size // len(ones))
        done = by_module.get(group, (0.0, 0))
        by_module[group] = (done[0] + float(ones.sum()), done[1] + leaf.size)
    total = sum(n for _, n in by_module.values())
    return {
        "density": sum(x for x, _ in by_module.values()) / total,
        "by_module": {k: x / n for k, (x, n) in by_module.items()},
        "by_block": {k: x / n for k, (x, n) in by_block.items()},
    }
