"""Stage `mask`: compares importances weight by weight."""

import contextlib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import load_tree, save_tree
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.processes import is_first, to_host
from mmunlearner_jax.results import update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import device_bytes
from mmunlearner_jax.stages.importance import StoredSums, load_sums, open_sums
from mmunlearner_jax.unlearn import bits
from mmunlearner_jax.unlearn.control_masks import drawn_mask
from mmunlearner_jax.unlearn.mask import (
    cover,
    density,
    masses,
    preserve_importance,
    saliency_mask,
    unit_mass,
)
from mmunlearner_jax.weights.io import leaf_labels, to_hf_names


def run(session: Session) -> bool:
    """Writes `mask/` (packed bits), `mask.safetensors` (uint8) and the densities.

    Reads no weights.
    """
    workdir = session.workdir
    if is_done(workdir / "mask"):
        return False
    mask = make_mask(session)
    update_results(workdir, "mask", density(mask, *leaf_labels(session.model)))
    named = {
        name: np.ascontiguousarray(bits, np.uint8)
        for name, bits in to_hf_names(session.model, to_host(mask)).items()
    }
    if is_first():
        partial = workdir / "mask.safetensors.partial"
        save_file(named, partial, metadata={"format": "pt"})
        partial.replace(workdir / "mask.safetensors")
    save_tree(workdir / "mask", bits.pack(mask, bits.FILES))
    return True


# Bytes on a device of the importances of one set that are compared at a time.
_AT_ONCE = 2 * 2**30


def make_mask(session: Session, folder: Path | None = None) -> Any:
    """Makes the mask: a tree of bools like all parameters, False for frozen parameters.

    Importances are read and compared a few parameters at a time: at 7B those of all sets together
    do not fit a GPU.

    Args:
        session: Session of the run.
        folder: Folder that holds `importance/`; None: the workdir.
    """
    if session.config.mask.by == "random":
        return _random(session)
    config, folder = session.config, folder or session.workdir
    sets_of_groups = config.importance.preserve.to_dict()
    frozen, moving = session.split_frozen(session.abstract)
    names, groups = (session.split_frozen(labels)[1] for labels in leaf_labels(session.model))
    pattern = cover_pattern(session)
    covered = [bool(re.search(pattern, name)) for name in jax.tree.leaves(names)]
    needed = ("forget", *config.importance.preserve.used)
    leaves, pieces = [], _pieces(jax.tree.leaves(moving), jax.tree.leaves(groups), covered)
    with contextlib.ExitStack() as stack:
        sets = {name: stack.enter_context(open_sums(folder, name, moving)) for name in needed}
        weights, mass = {name: each.count for name, each in sets.items()}, {}
        if config.importance.normalise == "group":
            weights = dict.fromkeys(needed, 1.0)
            mass = {name: _mass(each, pieces) for name, each in sets.items()}

        @functools.partial(jax.jit, static_argnums=2)
        def compare(means: dict[str, Any], mass: dict[str, Any], groups: tuple[str, ...]) -> Any:
            if mass:
                means = {n: unit_mass(mean, [*groups], mass[n]) for n, mean in means.items()}
            kept = {n: (mean, weights[n]) for n, mean in means.items() if n != "forget"}
            preserve = preserve_importance(kept, sets_of_groups, [*groups])
            threshold, eps = config.mask.threshold, config.mask.eps
            return saliency_mask(means["forget"], preserve, threshold=threshold, eps=eps)

        for piece in pieces:
            means = {name: each.mean(piece.numbers) for name, each in sets.items()}
            leaves += compare(means, mass, piece.groups)
    mask = jax.tree.unflatten(jax.tree.structure(moving), leaves)
    mask = cover(mask, names, pattern, uncovered=config.mask.uncovered)
    return nnx.merge_state(mask, _nowhere(frozen))


def _random(session: Session) -> Any:
    """Returns a mask that is drawn by the seed, of all weights that have one; reads nothing."""
    frozen, moving = session.split_frozen(session.abstract)
    names, pattern = session.split_frozen(leaf_labels(session.model)[0])[1], cover_pattern(session)
    config = session.config
    drawn = drawn_mask(moving, config.mask.density, config.seed)
    mask = cover(drawn, names, pattern, uncovered=config.mask.uncovered)
    return nnx.merge_state(mask, _nowhere(frozen))


def _nowhere(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, bool, device=p.sharding), params)


def preserved(session: Session) -> Any:
    """Returns the importance for what is kept, float32 like all parameters, 0 where frozen.

    Each module group has the preserve sets of `config.importance.preserve`, pooled, not scaled.

    Raises:
        InputError: The workdir has no `importance/`.
    """
    options = session.config.importance.preserve
    frozen, moving = session.split_frozen(session.abstract)
    groups = session.split_frozen(leaf_labels(session.model)[1])[1]
    kept = {}
    for name in options.used:
        sums = load_sums(session.workdir, name, moving)
        kept[name] = sums.mean(), float(sums.count)
    nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, device=p.sharding), frozen)
    return nnx.merge_state(preserve_importance(kept, options.to_dict(), groups), nothing)


class _Piece(NamedTuple):
    """Some of the parameters: their numbers, their module groups, and whether each has a mask."""

    numbers: tuple[int, ...]
    groups: tuple[str, ...]
    covered: tuple[bool, ...]


def _pieces(params: Sequence[Any], *labels: Sequence[Any]) -> list[_Piece]:
    """Divides parameters so that the importances of a piece take at most `_AT_ONCE` bytes.

    A parameter whose importances take more is a piece of its own.
    """
    pieces, room = [], 0
    for n, param in enumerate(params):
        size = device_bytes(param) * 4 // param.dtype.itemsize
        if size > room:
            pieces.append([])
            room = _AT_ONCE
        pieces[-1].append(n)
        room -= size
    return [
        _Piece(tuple(piece), *(tuple(of[n] for n in piece) for of in labels)) for piece in pieces
    ]


def _mass(sums: StoredSums, pieces: Sequence[_Piece]) -> dict[str, jax.Array]:
    """Returns the sum of a set's importances over each module group, see `unlearn.mask.masses`."""

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def add(mean: list[jax.Array], groups: Any, covered: Any, before: Any) -> dict[str, jax.Array]:
        return masses(mean, [*groups], [*covered], before)

    mass: dict[str, jax.Array] = {}
    for numbers, groups, covered in pieces:
        mass = add(sums.mean(numbers), groups, covered, mass)
    return mass


def cover_pattern(session: Session) -> str:
    """Returns the cover: the regular expression of the parameter names that have a mask."""
    model_type = session.model.config.model_type
    return session.config.mask.cover or ARCHITECTURES[model_type].maskable


def load_mask(workdir: Path, params: Any) -> Any:
    """Reads a workdir's mask, a tree of bools like all parameters and sharded like them.

    Args:
        workdir: Folder of the run.
        params: All parameters, real or abstract.

    Raises:
        InputError: The mask is missing, or was made for another model.
    """
    packed = load_tree(workdir / "mask", bits.packed_shapes(params, bits.FILES))
    unpack = functools.partial(bits.unpack, params=params, axis=bits.FILES)
    shardings = jax.tree.map(lambda param: param.sharding, params)
    return jax.jit(unpack, out_shardings=shardings)(packed)
