"""Stage `mask`: compares importances weight by weight."""

import re
from pathlib import Path
from typing import Any

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
from mmunlearner_jax.stages.importance import load_sums
from mmunlearner_jax.unlearn import bits
from mmunlearner_jax.unlearn.mask import (
    cover,
    density,
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
    save_tree(workdir / "mask", bits.pack(mask))
    return True


def make_mask(session: Session, folder: Path | None = None) -> Any:
    """Makes the mask: a tree of bools like all parameters, False for frozen parameters.

    Args:
        session: Session of the run.
        folder: Folder that holds `importance/`; None: the workdir.
    """
    config, folder = session.config, folder or session.workdir
    options, preserved = config.importance, config.importance.preserve.to_dict()
    frozen, moving = session.split_frozen(session.abstract)
    names, groups = (session.split_frozen(labels)[1] for labels in leaf_labels(session.model))
    pattern = cover_pattern(session)
    covered = jax.tree.map(lambda name: bool(re.search(pattern, name)), names)
    needed = {name for sets in preserved.values() for name in sets}
    sums = {name: load_sums(folder, name, moving) for name in ("forget", *sorted(needed))}
    counts = {name: float(s.count) for name, s in sums.items()}

    @jax.jit
    def compare(means: dict[str, Any]) -> Any:
        forget = means.pop("forget")
        if options.normalise == "group":
            forget = unit_mass(forget, groups, covered)
        preserve = preserve_importance(
            {name: (mean, counts[name]) for name, mean in means.items()},
            preserved,
            groups,
            normalise=options.normalise,
            covered=covered,
        )
        return saliency_mask(forget, preserve, threshold=config.mask.threshold, eps=config.mask.eps)

    mask = compare({name: s.mean() for name, s in sums.items()})
    mask = cover(mask, names, pattern, uncovered=config.mask.uncovered)
    nowhere = jax.tree.map(lambda p: jnp.zeros(p.shape, bool, device=p.sharding), frozen)
    return nnx.merge_state(mask, nowhere)


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
    return bits.unpack(load_tree(workdir / "mask", bits.packed_shapes(params)), params)
