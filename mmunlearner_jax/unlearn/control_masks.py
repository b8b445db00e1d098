"""Masks that are not chosen by a ratio: those of the controls have as many True as that mask.

All trees have the structure of the parameters.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.processes import to_host

Tree = Any


def random_mask(mask: Tree, seed: int) -> Tree:
    """Returns a control's mask: each array holds as many True, but at random places.

    Args:
        mask: Tree of bool arrays.
        seed: Seed of the random places.
    """
    # Shuffled on the host: a device would sort as many keys as there are weights.
    rng = np.random.default_rng(seed)

    def shuffled(m: jax.Array) -> jax.Array:
        drawn = to_host(m).flatten()
        rng.shuffle(drawn)
        return _placed(drawn, m)

    return jax.tree.map(shuffled, mask)


def drawn_mask(params: Tree, density: float, seed: int) -> Tree:
    """Returns a mask that is True at random places, as dense in every array.

    Args:
        params: Tree of arrays or `jax.ShapeDtypeStruct` with shardings.
        density: Fraction of True in each array, rounded to whole weights, one at least.
        seed: Seed of the random places.
    """
    rng = np.random.default_rng(seed)

    def drawn(p: jax.Array) -> jax.Array:
        chosen = np.arange(p.size) < max(1, round(density * p.size))
        rng.shuffle(chosen)
        return _placed(chosen, p)

    return jax.tree.map(drawn, params)


def global_random_mask(mask: Tree, covered: Tree, seed: int) -> Tree:
    """Returns a control's mask: as many True in all, at random places of all covered weights.

    Unlike `random_mask` it does not keep the number of True per array, which is itself a result of
    the importances.

    Args:
        mask: Tree of bool arrays.
        covered: Tree of bool arrays of the same shapes; the result is False where it is False.
        seed: Seed of the random places.
    """
    rng = np.random.default_rng(seed)
    chosen = _count(jax.tree.map(jnp.logical_and, mask, covered))
    leaves, structure = jax.tree.flatten(covered)
    counts = _divided(rng, chosen, [_count(leaf) for leaf in leaves])

    def drawn(leaf: jax.Array, count: int) -> jax.Array:
        values = to_host(leaf).flatten()
        (free,) = np.nonzero(values)
        values[rng.permutation(free)[count:]] = False
        return _placed(values, leaf)

    return with_uncovered(structure.unflatten(map(drawn, leaves, counts)), mask, covered)


def with_uncovered(drawn: Tree, mask: Tree, covered: Tree) -> Tree:
    """Returns a mask that is drawn where weights are covered, and the mask of the run elsewhere.

    With `config.mask.uncovered` the mask of the run is True at weights that it does not cover.
    """
    return jax.tree.map(lambda d, m, c: jnp.where(c, d, m), drawn, mask, covered)


def _divided(rng: np.random.Generator, chosen: int, places: list[int]) -> list[int]:
    """Returns how many of the chosen lie in each array, if all places are equally likely.

    NumPy draws from fewer than 1e9 places. Of more, each array has its share, to within one weight.
    """
    total = sum(places)
    if total < 10**9:
        return rng.multivariate_hypergeometric(places, chosen, method="marginals").tolist()
    ends = [chosen * end // total for end in itertools.accumulate(places)]
    return [end - begin for begin, end in itertools.pairwise([0, *ends])]


def random_blocks(mask: Tree, covered: Tree, names: Tree, seed: int) -> Tree:
    """Returns a control's mask: about as many True in all, in whole blocks drawn at random.

    A block is one matrix of one layer, or any other parameter. Blocks are drawn until they hold as
    many covered weights as the mask holds True.

    Args:
        mask: Tree of bool arrays.
        covered: Tree of bool arrays of the same shapes.
        names: Tree of Hugging Face names.
        seed: Seed of the drawing.
    """
    wanted = _count(jax.tree.map(jnp.logical_and, mask, covered))
    rng = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(covered)
    hosts = [to_host(leaf) for leaf in leaves]
    blocks = [
        (number, layer if "{layer}" in name else slice(None))
        for number, name in enumerate(jax.tree.leaves(names))
        for layer in (range(hosts[number].shape[0]) if "{layer}" in name else (0,))
    ]
    values = [np.zeros_like(host) for host in hosts]
    held = 0
    for place in rng.permutation(len(blocks)):
        if held >= wanted:
            break
        number, layer = blocks[place]
        values[number][layer] = hosts[number][layer]
        held += int(hosts[number][layer].sum())
    placed = [_placed(value.ravel(), leaf) for value, leaf in zip(values, leaves, strict=True)]
    return with_uncovered(structure.unflatten(placed), mask, covered)


def _count(mask: Tree) -> int:
    """Returns the number of True in a tree of bool arrays."""
    return sum(int(to_host(leaf).sum()) for leaf in jax.tree.leaves(mask))


def top_mask(importance: Tree, mask: Tree) -> Tree:
    """Returns a control's mask: each array holds as many True, where an importance is largest.

    Args:
        importance: Tree of float32 arrays with the structure and shapes of the mask.
        mask: Tree of bool arrays, whose number of True per array is kept.
    """

    def greatest(x: jax.Array, m: jax.Array) -> jax.Array:
        flat, count = to_host(x).ravel(), int(to_host(m).sum())
        chosen = np.zeros(flat.shape, bool)
        chosen[np.argpartition(-flat, count - 1)[:count]] = True
        return _placed(chosen, m)

    return jax.tree.map(greatest, importance, mask)


def _placed(values: np.ndarray, like: jax.Array) -> jax.Array:
    """Returns flat NumPy values as an array with the shape and sharding of another."""
    values = values.reshape(like.shape)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: values[index])
