"""Stage `mask`: importances compared, weight by weight."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import load_tree, save_tree
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.processes import is_first, to_host
from mmunlearner_jax.results import update_results
from mmunlearner_jax.sharding import fitting
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.importance import load_sums
from mmunlearner_jax.unlearn.mask import (
    cover,
    density,
    preserve_importance,
    saliency_mask,
    unit_mass,
)
from mmunlearner_jax.weights.io import leaf_labels, to_hf_names


def make_mask(config: ConfigDict, workdir: Path, at: setup.Setup) -> Any:
    """The mask of this config, from the importances of the workdir; False where frozen."""
    options = config.importance
    names, groups = (at.apart(labels)[1] for labels in leaf_labels(at.model))
    needed = {name for use in options.preserve.values() for name in use}
    sums = {name: load_sums(workdir, name, at.moving) for name in ("forget", *sorted(needed))}
    counts = {name: float(s.count) for name, s in sums.items()}

    @jax.jit
    def compare(means: dict[str, Any]) -> Any:
        forget = means.pop("forget")
        if options.normalise == "group":
            forget = unit_mass(forget, groups)
        preserve = preserve_importance(
            {name: (mean, counts[name]) for name, mean in means.items()},
            options.preserve.to_dict(),
            groups,
            normalise=options.normalise,
        )
        return saliency_mask(forget, preserve, threshold=config.mask.threshold, eps=config.mask.eps)

    mask = compare({name: s.mean() for name, s in sums.items()})
    covered = config.mask.cover or ARCHITECTURES[at.model.config.model_type].maskable
    mask = cover(mask, names, covered, uncovered=config.mask.uncovered)
    nowhere = jax.tree.map(lambda p: jnp.zeros_like(p, bool), at.frozen)
    return nnx.merge_state(mask, nowhere)


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `mask/` (bits packed), `mask.safetensors` (uint8) and the densities."""
    if is_done(workdir / "mask"):
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    mask = make_mask(config, workdir, at)
    update_results(workdir, "mask", density(mask, *leaf_labels(at.model)))
    named = {
        name: np.ascontiguousarray(bits, np.uint8)
        for name, bits in to_hf_names(at.model, to_host(mask)).items()
    }
    if is_first():
        partial = workdir / "mask.safetensors.partial"
        save_file(named, partial, metadata={"format": "pt"})
        partial.replace(workdir / "mask.safetensors")
    save_tree(workdir / "mask", _pack(mask))
    return True


def load_mask(workdir: Path, params: Any) -> Any:
    """Reads the mask of this workdir, sharded like the parameters.

    Raises:
        InputError: there is none, or it was made for another model.
    """
    packed = load_tree(workdir / "mask", jax.tree.map(_packed, params))

    lengths = jax.tree.map(lambda p: p.shape[-1], params)

    def unpack(bits: jax.Array, length: int) -> jax.Array:
        return jnp.unpackbits(bits, axis=-1, count=length).astype(bool)

    homes = jax.tree.map(lambda p: p.sharding, params)
    return jax.jit(lambda bits: jax.tree.map(unpack, bits, lengths), out_shardings=homes)(packed)


@jax.jit
def _pack(mask: Any) -> Any:
    return jax.tree.map(lambda m: jnp.packbits(m, axis=-1), mask)


def _packed(param: jax.Array) -> jax.ShapeDtypeStruct:
    """What eight bits a byte along the last axis make of a mask like this parameter."""
    shape = (*param.shape[:-1], -(-param.shape[-1] // 8))
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=fitting(param.sharding, shape))


def all_true(params: nnx.State) -> Any:
    """No mask at all."""
    return jax.tree.map(lambda p: jnp.ones_like(p, bool), params)
