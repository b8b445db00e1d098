"""What an unlearning run moves: full weights, or adapters that are merged when it ends."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.config import Config
from mmunlearner_jax.progress import say
from mmunlearner_jax.session import Session
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.mask import all_true
from mmunlearner_jax.weights.io import in_groups, weight_names
from mmunlearner_jax.weights.peft import save_adapters


class Movable(NamedTuple):
    """A model as an unlearning run sees it.

    Attributes:
        graphdef: Of the model that steps compute, adapters included.
        moving: What steps move; nobody else holds these arrays, which steps may take.
        frozen: The other parameters.
        mask: True where forget steps may move something, like `moving`.
    """

    graphdef: nnx.GraphDef
    moving: nnx.State
    frozen: nnx.State
    mask: nnx.State


def lora_targets(
    config: Config, model_type: str, graphdef: nnx.GraphDef, params: nnx.State
) -> tuple[lora.Path, ...]:
    """Returns the layers that `config.unlearn.lora` gives adapters; () where its rank is 0.

    Args:
        config: Config of the run.
        model_type: `model_type` of the model's config.
        graphdef: Graph definition of the model.
        params: Parameters of the model, real or abstract.

    Raises:
        InputError: The patterns do not fit the model.
    """
    options = config.unlearn.lora
    if not options.rank:
        return ()
    still = {*config.model.frozen, *config.unlearn.held}
    _, moving = nnx.split_state(params, in_groups(model_type, still), ...)
    names = weight_names(model_type, moving)
    kernels = {path: (*path, "kernel") for path in lora.linears(graphdef, params)}
    return lora.choose(
        options.targets, {path: names[k] for path, k in kernels.items() if k in names}
    )


def movable(session: Session, mask: nnx.State | None) -> Movable:
    """Returns the parts that `config.unlearn.lora` makes of a model.

    Args:
        session: Session of the run.
        mask: True where forget steps may move a weight, like all parameters; None: everywhere.
            Adapters have it within the model, so that nothing moves what it protects (see
            `unlearn.lora`).

    Raises:
        InputError: The mask covers no weight that has an adapter.
    """
    config, graphdef, params = session.config, session.graphdef, session.params
    targets = lora_targets(config, session.model.config.model_type, graphdef, params)
    if not targets:
        still = config.unlearn.held
        frozen, moving = session.split_frozen(params, still)
        moving = jax.tree.map(jnp.copy, moving)
        chosen = all_true(moving) if mask is None else session.split_frozen(mask, still)[1]
        return Movable(graphdef, moving, frozen, chosen)
    options = config.unlearn.lora
    graphdef, adapters, frozen = lora.attach(
        graphdef, params, targets, rank=options.rank, alpha=options.alpha, mask=mask
    )
    if mask is not None:
        lora.coverage(frozen)
    adapters = lora.initial(adapters, config.seed)
    return Movable(graphdef, adapters, frozen, all_true(adapters))


def save_peft(session: Session, end: Movable) -> dict[str, Any]:
    """Writes `adapters/`, PEFT's files, where a run ended with adapters that PEFT can hold.

    Args:
        session: Session of the run.
        end: The model's parts at the end of the run.

    Returns:
        What `results.json` tells of the adapters; {} where there are none.
    """
    options = session.config.unlearn.lora
    if not options.rank:
        return {}
    results: dict[str, Any] = {
        "rank": options.rank,
        "parameters": sum(x.size for x in jax.tree.leaves(end.moving)),
    }
    masked = any(path[-1] == "mask" for path, _ in nnx.to_flat_state(end.frozen))
    if masked:
        results["coverage"] = lora.coverage(end.frozen)
        results["peft"] = "not written: through a mask the update has no low rank; see export/"
        say(f"adapters/: {results['peft']}")
    else:
        save_adapters(
            end.moving,
            weight_names(session.model.config.model_type, session.abstract),
            session.workdir / "adapters",
            rank=options.rank,
            alpha=options.alpha,
            base=session.checkpoint,
        )
        results["peft"] = "adapters"
    return {"lora": results}
