"""Importance: mean squared gradients of the answer loss, the diagonal of the empirical Fisher.

`fisher="example"` squares every example's own gradient. `fisher="batch"` squares the gradient of a
batch, as the published code does (D-06: such squares depend on the batch size). Both are summed in
float32 (D-05: in float16, as published, squares underflow).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from mmunlearner_jax.models.consecutive import repeated
from mmunlearner_jax.models.packing import IGNORE, Sizes, answer_places, unpacked
from mmunlearner_jax.models.squares import Shared, keep, probe
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.sharding import replicated, settled
from mmunlearner_jax.unlearn.scoring import (
    NOTHING,
    Batch,
    Params,
    answer_nll,
    example_mean,
    pictures_of,
    token_mean,
)

Fisher = Literal["example", "batch"]
Weights = Literal["none", "doubt"]
_FLOOR = 1e-3  # of 1 - p, which rounding would make 0


class FisherSums(struct.PyTreeNode):
    """The sums of a pass so far. A pass that saves them can be resumed.

    Attributes:
        squares: Sums of squared gradients, float32, with the structure and shapes of the measured
            parameters.
        count: Number of examples (or batches) in the sums, a float32 scalar.
    """

    squares: Params
    count: jax.Array

    @classmethod
    def zeros(cls, params: Params) -> "FisherSums":
        """Returns the sums before the first example, all 0, sharded like `params`."""
        squares = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
        return settled(cls(squares=squares, count=jnp.zeros((), jnp.float32)), params)

    @classmethod
    def abstract(cls, params: Params) -> "FisherSums":
        """Returns the shapes, dtypes and shardings of the sums.

        Args:
            params: The measured parameters, arrays or `jax.ShapeDtypeStruct`.
        """
        squares = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=p.sharding), params
        )
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        count: Any = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
        return cls(squares=squares, count=count)

    def mean(self) -> Params:
        """Returns the importance of every weight: `squares / count`, float32.

        Raises:
            ValueError: No example was summed.
        """
        if float(self.count) == 0:
            raise ValueError(
                "importance of no example: no batch held a supervised token; check the labels"
            )
        return _divided(self.squares, self.count)


@jax.jit
def _divided(tree: Params, by: jax.Array) -> Params:
    return jax.tree.map(lambda x: x / by, tree)


def accumulator(
    graphdef: nnx.GraphDef,
    *,
    fisher: Fisher = "example",
    sizes: Sizes | None = None,
    weights: Weights = "none",
) -> Callable[..., FisherSums]:
    """Returns the jitted step `(sums, params, batch, frozen) -> sums`.

    The step adds a batch to the sums. Its arguments are:

    * `sums`: The `FisherSums` so far; they are donated.
    * `params`: The measured parameters: of each layer either all or none.
    * `batch`: A dict as `scoring.answer_scores` takes it, with pictures as the model's
      `group_pictures` returns them. Rows without a supervised token add nothing and are not
      counted.
    * `frozen`: The parameters that are not measured, by default none.

    Args:
        graphdef: Graph definition of the model.
        fisher: `"example"` squares each example's gradient, `"batch"` each batch's.
        sizes: Sizes of packed rows, `Batches.sizes`. The examples of such a row share the forward
            pass of their picture and of the tokens before it, and each has a backward pass of its
            own.
        weights: `"doubt"` divides each example's gradient by 1 - p, p the mean probability of its
            answer's tokens (geometric); see `doubt`.

    Raises:
        ValueError: `fisher` is neither. The step raises it where `fisher` is `"example"`, several
            examples share a row, and there are no sizes.
    """
    if fisher not in ("example", "batch"):
        raise ValueError(f"fisher must be 'example' or 'batch', not {fisher!r}")
    whole = fisher == "batch"

    def add(sums: FisherSums, params: Params, batch: Batch, frozen: Params = NOTHING) -> FisherSums:
        batch, shared = (batch, Shared()) if whole else _examples(batch, sizes)

        def loss(sums: Params) -> tuple[jax.Array, jax.Array]:
            sums, nothing = keep(sums)
            probed = probe(params, sums, kind="batch" if whole else "examples", shared=shared)
            nll, tokens = answer_nll(graphdef, nnx.merge_state(probed, frozen), batch)
            if whole:
                return token_mean(nll, tokens) + nothing, jnp.any(tokens > 0)
            means = example_mean(nll, tokens)
            if weights == "doubt":
                means = doubt(means) * means
            return jnp.sum(means) + nothing, jnp.sum(tokens > 0)

        # The cotangent of the sums is the new sums (`squares`).
        squares, count = jax.grad(loss, has_aux=True)(sums.squares)
        return FisherSums(squares=squares, count=sums.count + count)

    return jax.jit(add, donate_argnums=0)


def doubt(means: jax.Array) -> jax.Array:
    """Returns the weights 1 / (1 - p) of examples, as constants; float32 like the losses.

    The gradient of an answer's loss vanishes with 1 - p, so on a model that was fitted long the few
    answers that it is least sure of make up most of an importance.

    Args:
        means: Mean loss per token of each example in nats, -log p.
    """
    return jax.lax.stop_gradient(1 / (_FLOOR - jnp.expm1(-means)))


def _examples(batch: Batch, sizes: Sizes | None) -> tuple[Batch, Shared]:
    """Returns a batch with a row for each example, and what the rows of a picture share."""
    if "segments" not in batch:
        return batch, Shared()
    if sizes is None:
        raise ValueError("fisher='example' needs the sizes of packed rows: give Batches.sizes")
    pictures, count = pictures_of(batch), sizes.segments
    rows = unpacked(batch, sizes) | repeated(pictures, count)
    return rows, Shared(count, sizes.prefix) if pictures else Shared()


def importance(
    model: VisionLanguageModel, batches: Iterable[Batch], *, fisher: Fisher = "example"
) -> Params:
    """Returns the mean squared gradient of the mean answer loss, for every parameter.

    Args:
        model: A model that `from_pretrained` returned.
        batches: Dicts in transformers' conventions: `input_ids`, `attention_mask`, `labels`
            [B, T] (-100: not supervised) and, with pictures, the processor's output for them, in
            the order of the image tokens. Every new shape is compiled once.
        fisher: `"example"`: mean over examples of the squared gradient of the example's mean
            answer loss. `"batch"`: mean over batches of the squared gradient of the batch's
            token-mean loss (D-06: the batch size changes the result).

    Returns:
        A float32 tree with the structure of `nnx.state(model, nnx.Param)`.

    Raises:
        ValueError: A row has no supervised token, or `batches` is empty.
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
