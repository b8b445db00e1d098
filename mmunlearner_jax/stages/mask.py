"""Stage `mask`: importances compared, weight by weight."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from mmunlearner_jax.checkpoint import load_tree, save_tree
from mmunlearner_jax.results import update_results
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
    """The mask of this config, from the importances of the workdir."""
    options = config.importance
    names, groups = leaf_labels(at.model)
    needed = {name for use in options.preserve.values() for name in use}
    sums = {name: load_sums(workdir, name, at.params) for name in ("forget", *sorted(needed))}
    forget = sums.pop("forget").mean()
    if options.normalise == "group":
        forget = unit_mass(forget, groups)
    preserve = preserve_importance(
        {name: (s.mean(), float(s.count)) for name, s in sums.items()},
        options.preserve.to_dict(),
        groups,
        normalise=options.normalise,
    )
    mask = saliency_mask(
        forget, preserve, threshold=config.mask.threshold, eps=config.mask.eps
    )
    return cover(mask, names, config.mask.cover, uncovered=config.mask.uncovered)


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `mask/` (bits packed), `mask.safetensors` (uint8) and the densities."""
    if (workdir / "mask").exists():
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    mask = jax.jit(lambda m: m)(make_mask(config, workdir, at))
    update_results(workdir, "mask", density(mask, *leaf_labels(at.model)))
    named = to_hf_names(at.model, mask)
    save_file(
        {k: np.asarray(v, np.uint8) for k, v in named.items()},
        workdir / "mask.safetensors",
        metadata={"format": "pt"},
    )
    save_tree(workdir / "mask", jax.tree.map(jnp.packbits, mask))
    return True


def load_mask(workdir: Path, params: Any) -> Any:
    """Reads the mask of this workdir, sharded like the parameters.

    Raises:
        InputError: there is none, or it was made for another model.
    """
    sizes = jax.tree.map(lambda p: p.size, params)
    packed = jax.tree.map(
        lambda p, n: jax.ShapeDtypeStruct((-(-n // 8),), jnp.uint8, sharding=p.sharding),
        params,
        sizes,
    )
    bits = load_tree(workdir / "mask", packed)
    return jax.tree.map(
        lambda b, p: jax.device_put(
            jnp.unpackbits(b, count=p.size).reshape(p.shape).astype(bool), p.sharding
        ),
        bits,
        params,
    )


def all_true(params: nnx.State) -> Any:
    """No mask at all."""
    return jax.tree.map(lambda p: jnp.ones_like(p, bool), params)
