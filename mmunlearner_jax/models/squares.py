"""Per-example squared gradients at the price of one backward pass.

The Fisher diagonal of the method (paper, importance equation; defect D-05 of the published code)
is a mean over examples of *squared* gradients, which `jax.grad` of a batch cannot give. A model is
therefore cut into units, and every unit is called through `run`. Where the parameters of a unit are
`Probed`, the backward pass of that unit returns, as the cotangent of `Probed.square`, the sum over
examples of the squared per-example gradients, while activations get their ordinary cotangents.
One `jax.grad` of the summed loss with respect to the squares is then the whole diagonal, in float32
whatever the dtype of the weights. Memory: the gradient of one unit for each local example.

    squares = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
    jax.grad(lambda s: loss_sum(nnx.merge(graphdef, probe(params, s))))(squares)
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.sharding import batch_sharding


@jax.tree_util.register_dataclass
@dataclass
class Probed:
    """Stands in place of a parameter array.

    Attributes:
        value: the parameter.
        square: float32 zeros of the same shape; their cotangent is the sum over examples of the
            squared per-example gradients of `value`.
    """

    value: Any
    square: Any


def is_probed(x: Any) -> TypeGuard[Probed]:
    """Tells a `Probed` from any other leaf."""
    return isinstance(x, Probed)


def probe(params: Any, squares: Any) -> Any:
    """Pairs a tree of parameters with a tree of slots of the same structure, leaf by leaf."""
    return jax.tree.map(Probed, params, squares)


def run(module: nnx.Module, *activations: Any, mesh: Mesh | None = None) -> Any:
    """Calls a unit: `module(*activations)`, with squares where its parameters are `Probed`.

    Args:
        module: a module that treats every example by itself; its parameters are in no other unit.
        *activations: pytrees of arrays [B, ...], all with the example axis first.
        mesh: that the unit itself splits arrays over (a kernel under `jax.shard_map`); the
            examples, which are taken out of its sight here, stay split over it. None: it does not.

    Returns:
        What the module returns, arrays [B, ...].
    """
    graphdef, params = nnx.split(module)
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_probed)
    if not any(map(is_probed, leaves)):
        return module(*activations)  # pyright: ignore[reportCallIssue]
    values = treedef.unflatten([leaf.value for leaf in leaves])
    squares = treedef.unflatten([leaf.square for leaf in leaves])

    def call(values, activations):
        return nnx.merge(graphdef, values)(*activations)

    @jax.custom_vjp
    def unit(values, squares, activations):
        return call(values, activations)

    def forward(values, squares, activations):
        return call(values, activations), (values, activations)

    def backward(residuals, cotangents):
        values, activations = residuals
        arrays, structure = jax.tree.flatten(activations)
        smooth = [a if jnp.issubdtype(a.dtype, jnp.floating) else None for a in arrays]

        def example(arrays, smooth, cotangents):
            def alone(values, smooth):
                one = [a if s is None else s for a, s in zip(arrays, smooth, strict=True)]
                one = [a[None] for a in one]
                return jax.tree.map(lambda y: y[0], call(values, structure.unflatten(one)))

            gradients, smooth = jax.vjp(alone, values, smooth)[1](cotangents)
            return gradients, smooth

        split = None if mesh is None else batch_sharding(mesh).spec[0]
        gradients, smooth = jax.vmap(example, spmd_axis_name=split)(arrays, smooth, cotangents)
        return None, jax.tree.map(_sum_of_squares, gradients), structure.unflatten(smooth)

    unit.defvjp(forward, backward)
    return unit(values, squares, activations)


def spread(probed: Probed, batch: int) -> jax.Array:
    """Gives every example its own copy of a matrix that two units share (a tied head).

    Use the copy in both places: squares are then of the *summed* gradient, which no unit by itself
    could know.

    Args:
        probed: a parameter of shape [V, D].
        batch: number of examples B.

    Returns:
        [B, V, D].
    """

    @jax.custom_vjp
    def copies(value, square):
        return jnp.broadcast_to(value, (batch, *value.shape))

    def forward(value, square):
        return copies(value, square), None

    def backward(_, cotangents):
        return None, _sum_of_squares(cotangents)

    copies.defvjp(forward, backward)
    return copies(probed.value, probed.square)


def _sum_of_squares(gradients: jax.Array) -> jax.Array:
    """Sum over the example axis of [B, ...], in float32."""

    def contract(squares):
        return jnp.tensordot(jnp.ones(len(squares)), squares, 1, precision="highest")

    # XLA's sum over a leading axis is ten times slower than a product with ones on a CPU.
    squares = jnp.square(gradients.astype(jnp.float32))
    return jax.lax.platform_dependent(
        squares, cpu=contract, default=lambda squares: jnp.sum(squares, axis=0)
    )
