"""What an unlearning run moves: full weights, or adapters that are merged when it ends."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.processes import is_first
from mmunlearner_jax.stages.mask import all_true
from mmunlearner_jax.stages.setup import Setup
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.weights.io import weight_names
from mmunlearner_jax.weights.peft import save_adapters


class Parts(NamedTuple):
    """A model as a run sees it.

    Attributes:
        graphdef: of the model that steps compute, adapters included.
        moving: what steps move; nobody else holds these arrays, which steps may take.
        frozen: the other parameters.
        mask: True where ascent may move something, like `moving`.
    """

    graphdef: nnx.GraphDef
    moving: nnx.State
    frozen: nnx.State
    mask: nnx.State


def parts(config: ConfigDict, at: Setup, mask: Any | None) -> Parts:
    """The parts that `config.unlearn.lora` makes of a model.

    Args:
        config: of the run.
        at: the model.
        mask: True where ascent may move a weight, like all parameters; None: everywhere. Adapters
            have it within the model, so that nothing moves what it protects (see `unlearn.lora`).

    Raises:
        InputError: the mask covers no weight that has an adapter.
    """
    if not at.targets:
        moving = jax.tree.map(jnp.copy, at.moving)
        chosen = all_true(moving) if mask is None else at.apart(mask)[1]
        return Parts(at.graphdef, moving, at.frozen, chosen)
    options = config.unlearn.lora
    graphdef, adapters, frozen = lora.attach(
        at.graphdef, at.params, at.targets, rank=options.rank, alpha=options.alpha, mask=mask
    )
    if mask is not None:
        lora.coverage(frozen)
    adapters = lora.initial(adapters, at.seed)
    return Parts(graphdef, adapters, frozen, all_true(adapters))


def save(config: ConfigDict, workdir: Path, at: Setup, end: Parts, *, base: str) -> dict[str, Any]:
    """Writes `adapters/`, PEFT's files, where a run ended with adapters and PEFT can hold them.

    Args:
        config: of the run.
        workdir: of the run.
        at: the model.
        end: its parts at the end of the run.
        base: the checkpoint that the run began with.

    Returns:
        What `results.json` tells of the adapters; {} where there are none.
    """
    if not at.targets:
        return {}
    options = config.unlearn.lora
    told: dict[str, Any] = {
        "rank": options.rank,
        "parameters": sum(x.size for x in jax.tree.leaves(end.moving)),
    }
    masked = any(path[-1] == "mask" for path, _ in nnx.to_flat_state(end.frozen))
    if masked:
        told["coverage"] = lora.coverage(end.frozen)
        told["peft"] = "not written: through a mask the update has no low rank; see export/"
        if is_first():
            print(f"adapters/: {told['peft']}", file=sys.stderr)
    else:
        names = weight_names(at.model.config.model_type, at.params)
        save_adapters(
            end.moving,
            names,
            workdir / "adapters",
            rank=options.rank,
            alpha=options.alpha,
            base=base,
        )
        told["peft"] = "adapters"
    return {"lora": told}
