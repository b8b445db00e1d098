"""The saliency mask: True for weights that matter more for the forget set than for other data.

All trees have the structure of the parameters. `names` is a tree of Hugging Face names, in which
`{layer}` stands for the index along the first axis of stacked layers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.processes import to_host

Tree = Any


def saliency_mask(
    forget: Tree, preserve: Tree, *, threshold: float = 1.0, eps: float = 0.0
) -> Tree:
    """Returns True where `(forget + eps) / (preserve + eps) >= threshold`, computed in float32.

    With `eps=0` a weight whose importances are both 0 is protected, because 0/0 is NaN and every
    comparison with NaN is False. A weight that matters for the forget set alone is chosen. The
    published code adds 1e-15, which chooses the weights whose importances are both 0 (D-05).

    Args:
        forget: Importance for the forget set, a tree of float arrays.
        preserve: Importance for the preserve set, a tree of the same structure and shapes.
        threshold: Smallest ratio of the importances at which a weight is chosen, positive; 1 is the
            published value.
        eps: Constant added to both importances, 0 or more.

    Returns:
        A tree of bool arrays, True where a weight is chosen.

    Raises:
        ValueError: The trees differ in structure or shapes, or the threshold is not a positive
            finite number.
    """
    if not (threshold > 0 and math.isfinite(threshold)):
        raise ValueError(f"threshold is {threshold}: give a positive number")
    if jax.tree.map(jnp.shape, forget) != jax.tree.map(jnp.shape, preserve):
        raise ValueError(
            "forget and preserve differ in structure or shapes: give importances of one model"
        )

    return _chosen(forget, preserve, threshold, eps)


@jax.jit  # one program, where every operation on every leaf would be one
def _chosen(forget: Tree, preserve: Tree, threshold: float, eps: float) -> Tree:
    def chosen(f: jax.Array, p: jax.Array) -> jax.Array:
        f, p = f.astype(jnp.float32), p.astype(jnp.float32)
        return (f + eps) / (p + eps) >= threshold

    return jax.tree.map(chosen, forget, preserve)


def preserve_importance(
    sets: Mapping[str, tuple[Tree, float]],
    use: Mapping[str, Sequence[str]],
    groups: Tree,
) -> Tree:
    """Returns the importance for the preserve sets together; each module group chooses its sets.

    The sets of a group are pooled: with numbers of examples as weights, the result is the mean over
    the examples of all of them, as if their loaders were concatenated.

    Args:
        sets: Importance tree and weight, by the name of the preserve set.
        use: Names of the preserve sets, by module group.
        groups: A tree of module group names, one per leaf.

    Returns:
        A float32 tree of importances.

    Raises:
        InputError: A group names an unknown set, or no set.
    """
    for group, names in use.items():
        unknown = [n for n in names if n not in sets]
        if unknown or not names:
            raise InputError(
                f"config.importance.preserve[{group!r}] names {unknown or 'no set'}: choose from"
                f" {sorted(sets)}"
            )
    weight = {k: float(count) for k, (_, count) in sets.items()}
    order = list(sets)

    def join(group: str, *leaves: jax.Array) -> jax.Array:
        total, mass = jnp.zeros(()), 0.0
        for name, leaf in zip(order, leaves, strict=True):
            if name in use[group]:
                total, mass = total + weight[name] * leaf, mass + weight[name]
        return total / mass

    return jax.tree.map(join, groups, *(tree for tree, _ in sets.values()))


def masses(
    tree: Tree, groups: Tree, covered: Tree, before: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns the sum of an importance over the covered part of each module group.

    Args:
        tree: Importance, a tree of float32 arrays; it may be a part of the model.
        groups: A tree of module group names, one per leaf.
        covered: A tree of bool, one per leaf: whether its parameter has a mask.
        before: The sums over other parts; {}: there are none.
    """
    mass = dict.fromkeys(jax.tree.leaves(groups), jnp.zeros(())) | dict(before)
    leaves = (jax.tree.leaves(t) for t in (groups, tree, covered))
    for group, leaf, counted in zip(*leaves, strict=True):
        if counted:
            mass[group] = mass[group] + jnp.sum(leaf)
    return mass


def unit_mass(tree: Tree, groups: Tree, mass: Mapping[str, jax.Array]) -> Tree:
    """Returns an importance scaled so that it sums to 1 over the covered part of a module group.

    The scale decides where the ratio of two importances crosses the threshold, and with it a set
    that the model fits better does not count for less (D-07: the published threshold compares
    losses of different scale). Parameters that the mask does not cover would shift it, so they do
    not count. A module group whose importance is 0 everywhere is left as it is.

    Args:
        tree: Importance, a tree of float32 arrays; it may be a part of the model.
        groups: A tree of module group names, one per leaf.
        mass: The sums of all parts, see `masses`.
    """
    return jax.tree.map(lambda g, leaf: leaf / jnp.where(mass[g] > 0, mass[g], 1), groups, tree)


def cover(mask: Tree, names: Tree, pattern: str, *, uncovered: bool) -> Tree:
    """Returns the mask for the parameters whose name matches a pattern, and one value elsewhere.

    With `uncovered=False` forget steps move no parameter outside the pattern. `uncovered=True`
    reproduces the published code, in which gradient ascent moves every weight that has no mask
    (D-02).

    Args:
        mask: Tree of bool arrays.
        names: Tree of parameter names.
        pattern: Regular expression, searched in the names.
        uncovered: Value of the mask where the name does not match.

    Raises:
        InputError: The mask would let no weight move.
    """

    @jax.jit  # one program instead of one for each leaf
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
            f"config.mask.cover={pattern!r}: the mask covers no weight; lower"
            " config.mask.threshold or widen the pattern"
        )
    return mask


def all_true(params: Tree) -> Tree:
    """Returns a mask that protects no weight: True everywhere, sharded like the parameters."""
    return jax.tree.map(lambda p: jnp.ones_like(p, bool), params)


def density(mask: Tree, names: Tree, groups: Tree) -> dict[str, Any]:
    """Returns the fraction of True in a mask: in all, per module group and per block.

    A block is one matrix of one layer, or any other parameter.

    Args:
        mask: Tree of bool arrays.
        names: Tree of Hugging Face names.
        groups: Tree of module group names.

    Returns:
        `{"density": x, "by_module": {group: x}, "by_block": {name: x}}`, where x is 0 to 1 and a
        block goes by its Hugging Face name.
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
        count, size = by_module.get(group, (0.0, 0))
        by_module[group] = (count + float(ones.sum()), size + leaf.size)
    total = sum(n for _, n in by_module.values())
    return {
        "density": sum(x for x, _ in by_module.values()) / total,
        "by_module": {k: x / n for k, (x, n) in by_module.items()},
        "by_block": {k: x / n for k, (x, n) in by_block.items()},
    }
