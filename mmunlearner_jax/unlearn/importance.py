"""Importance: mean squared gradients of the answer loss, the diagonal of the empirical Fisher.

`fisher="example"` squares every example's own gradient; `fisher="batch"` squares the gradient
of a batch, as the published code does (D-06). Both are summed in float32 (D-05).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from mmunlearner_jax.models.packing import IGNORE, answer_places
from mmunlearner_jax.models.squares import keep, probe
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.sharding import replicated, settled
from mmunlearner_jax.unlearn.scoring import (
    NOTHING,
    Batch,
    Params,
    answer_nll,
    example_mean,
    token_mean,
)

Fisher = Literal["example", "batch"]


class FisherSums(struct.PyTreeNode):
    """What has been summed so far; saved as it is, the pass can be resumed.

    Attributes:
        squares: Float32 tree like the parameters that are measured, the sum of squared gradients.
        count: Float32 scalar, how many examples (or batches) were summed.
    """

    squares: Params
    count: jax.Array

    @classmethod
    def zeros(cls, params: Params) -> "FisherSums":
        """Sums of nothing, sharded like `params`."""
        squares = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
        return settled(cls(squares=squares, count=jnp.zeros((), jnp.float32)), params)

    @classmethod
    def abstract(cls, params: Params) -> "FisherSums":
        """Shapes, dtypes and shardings alone, of `params` that may be abstract, too."""
        squares = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=p.sharding), params
        )
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        count: Any = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
        return cls(squares=squares, count=count)

    def mean(self) -> Params:
        """The importance of every weight.

        Raises:
            ValueError: Nothing was summed.
        """
        if float(self.count) == 0:
            raise ValueError("importance of nothing: no batch held a supervised answer token")
        return _divided(self.squares, self.count)


@jax.jit
def _divided(tree: Params, by: jax.Array) -> Params:
    return jax.tree.map(lambda x: x / by, tree)


def accumulator(graphdef: nnx.GraphDef, *, fisher: Fisher = "example") -> Callable[..., FisherSums]:
    """The jitted step `(sums, params, batch, frozen) -> sums`; `sums` is donated.

    `frozen` are the parameters that are not measured, by default none; `params` are the others,
    all of a layer or none. A batch is a dict as `losses.answer_scores` takes it, its pictures as
    `group_pictures` of the model gives them. Rows without a supervised token add nothing and are
    not counted.

    Raises:
        ValueError: `fisher` is neither; or, from the step, examples that are squared one by one
            share rows.
    """
    if fisher not in ("example", "batch"):
        raise ValueError(f"fisher must be 'example' or 'batch', not {fisher!r}")
    whole = fisher == "batch"

    def add(sums: FisherSums, params: Params, batch: Batch, frozen: Params = NOTHING) -> FisherSums:
        if not whole and "segments" in batch:
            raise ValueError(
                "fisher='example' squares row by row: give batches that are not packed"
            )

        def loss(sums: Params) -> tuple[jax.Array, jax.Array]:
            sums, nothing = keep(sums)
            probed = probe(params, sums, whole=whole)
            nll, tokens = answer_nll(graphdef, nnx.merge_state(probed, frozen), batch)
            if whole:
                return token_mean(nll, tokens) + nothing, jnp.any(tokens > 0)
            return jnp.sum(example_mean(nll, tokens)) + nothing, jnp.sum(tokens > 0)

        # The cotangent of the sums is the new sums (`squares`).
        squares, count = jax.grad(loss, has_aux=True)(sums.squares)
        return FisherSums(squares=squares, count=sums.count + count)

    return jax.jit(add, donate_argnums=0)


def importance(
    model: VisionLanguageModel, batches: Iterable[Batch], *, fisher: Fisher = "example"
) -> Params:
    """Mean squared gradient of the mean answer loss, for every parameter.

    Args:
        model: A model of `from_pretrained`.
        batches: Dicts in transformers' conventions: `input_ids`, `attention_mask`, `labels`
            [B, T] (-100: not supervised) and, with pictures, what the model's processor makes of
            them, in the order of the image tokens. Every new shape compiles once.
        fisher: `"example"`: mean over examples of the squared gradient of the example's mean
            answer loss. `"batch"`: mean over batches of the squared gradient of the batch's
            token-mean loss (D-06: the batch size changes the result).

    Returns:
        A float32 tree with the structure of `nnx.state(model, nnx.Param)`.

    Raises:
        ValueError: A row has no supervised token, or there is no batch.
    """
    graphdef, params = nnx.split(model)
    add = accumulator(graphdef, fisher=fisher)
    sums = FisherSums.zeros(params)
    for number, batch in enumerate(batches):
        batch = {k: np.asarray(v) for k, v in batch.items()}
        empty = np.flatnonzero((batch["labels"][:, 1:] == IGNORE).all(axis=1))
        if empty.size:
            raise ValueError(f"batch {number}, row {empty[0]}: labels supervise no token")
        places = {"answer_places": answer_places(batch["labels"])}
        sums = add(sums, params, model.group_pictures(batch) | places)
    return sums.mean()
