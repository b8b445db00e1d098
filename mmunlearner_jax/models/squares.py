"""Squared gradients, of every example or of the batch, by one backward pass.

The Fisher diagonal of the method (paper, importance equation; defect D-05 of the published code)
is a mean over examples of *squared* gradients, which `jax.grad` of a batch cannot give. A model is
therefore cut into units, and every unit is called through `run`, stacked ones through `scan`. Where
the parameters of a unit are `Probed`, its backward pass returns, as the cotangent of `Probed.sums`,
these sums with the batch's squared per-example gradients added, while activations get their
ordinary cotangents. One `jax.grad` of the summed loss with respect to the sums is then the new
sums, in float32 whatever the dtype of the weights. Memory: the gradient of one unit for each local
example; the sums of stacked units are added to in place.

Squares of a batch's gradient (D-06) come the same way, unit by unit from the gradient of all its
examples, so that the whole model's gradient never exists.

    def loss(sums):
        sums, nothing = keep(sums)
        return loss_sum(nnx.merge(graphdef, probe(params, sums))) + nothing

    sums = jax.grad(loss)(sums)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh

from mmunlearner_jax.sharding import batch_parts, batch_sharding, by_example


@jax.tree_util.register_dataclass
@dataclass
class Probed:
    """Stands in place of a parameter array.

    Attributes:
        value: the parameter.
        sums: float32 of the same shape; their cotangent is `sums` plus the sum over examples of
            the squared per-example gradients of `value`; or plus the square of all examples'.
        whole: whether it is the gradient of all examples that is squared.
    """

    value: Any
    sums: Any
    whole: bool = field(default=False, metadata={"static": True})


def is_probed(x: Any) -> TypeGuard[Probed]:
    """Tells a `Probed` from any other leaf."""
    return isinstance(x, Probed)


def probe(params: Any, sums: Any, *, whole: bool = False) -> Any:
    """Pairs a tree of parameters with a tree of sums of the same structure, leaf by leaf.

    Args:
        params: parameters.
        sums: float32.
        whole: squares the gradient of all examples together, not each one's.
    """
    return jax.tree.map(lambda value, sums: Probed(value, sums, whole), params, sums)


def keep(sums: Any) -> tuple[Any, jax.Array]:
    """Lets sums pass through a batch that does not reach their parameters (no picture, no tower).

    Returns:
        The sums to probe with, and a 0 that must be added to the loss.
    """

    @jax.custom_vjp
    def through(sums):
        return sums, jnp.zeros(())

    def forward(sums):
        values = jax.tree.map(lambda s: s.value, sums)
        return through(values), values

    def backward(old, cotangents):
        new = jax.tree.map(lambda n, o: o if isinstance(n, SymbolicZero) else n, cotangents[0], old)
        return (new,)

    through.defvjp(forward, backward, symbolic_zeros=True)
    return through(sums)


def run(
    module: nnx.Module,
    *activations: Any,
    call: Callable[..., Any] = lambda module, *activations: module(*activations),
) -> Any:
    """Calls a unit: `module(*activations)`, with squares where its parameters are `Probed`.

    Args:
        module: a module that treats every example by itself (as only squares of each need it); its
            parameters are in no other unit.
        *activations: pytrees of arrays [B, ...], all with the example axis first.
        call: how the module is called with them, where it is not that.

    Returns:
        What the call returns, arrays [B, ...].
    """
    graphdef, params = nnx.split(module)
    if not any_probed(params):
        return call(module, *activations)
    values, sums, whole = _apart(params)

    def merged(values, activations):
        return call(nnx.merge(graphdef, values), *activations)

    @jax.custom_vjp
    def unit(values, sums, activations):
        return merged(values, activations)

    def forward(values, sums, activations):
        return merged(values, activations), (values, sums, activations)

    def backward(residuals, cotangents):
        values, sums, activations = residuals
        squares, smooth = _pull_back(merged, values, activations, cotangents, whole)
        return None, jax.tree.map(jnp.add, sums, squares), smooth

    unit.defvjp(forward, backward)
    return unit(values, sums, activations)


def scan(
    graphdef: nnx.GraphDef, params: Any, x: jax.Array, *rest: Any, mesh: Mesh | None
) -> jax.Array:
    """Calls stacked units one after the other: `x = unit(x, *rest)`; all of them are `Probed`.

    Only what flows between the units is kept for the backward pass, which runs each once more.

    Args:
        graphdef: of one unit.
        params: of all, with a leading axis.
        x: [B, ...], what flows from unit to unit.
        *rest: pytrees of arrays [B, ...] that every unit gets.
        mesh: splits the examples, also within a unit (a kernel under `jax.shard_map`).
    """
    values, sums, whole = _apart(params)

    def call(values, activations):
        x, *rest = activations
        return by_example(nnx.merge(graphdef, values)(by_example(x, mesh), *rest), mesh)

    @jax.custom_vjp
    def units(values, sums, x, rest):
        return forward(values, sums, x, rest)[0]

    def forward(values, sums, x, rest):
        out, inputs = jax.lax.scan(lambda x, v: (call(v, (x, *rest)), x), x, values)
        return out, (values, sums, inputs, rest)

    def backward(residuals, cotangent):
        values, sums, inputs, rest = residuals

        # The sums are carried and not scanned over, so that XLA adds to them in place.
        def body(carry, unit):
            cotangent, sums, others = carry
            index, values, x = unit
            given = (x, *rest)
            squares, (cotangent, *more) = _pull_back(call, values, given, cotangent, whole, mesh)
            sums = jax.tree.map(lambda s, q: s.at[index].add(q), sums, squares)
            return (cotangent, sums, jax.tree.map(jnp.add, others, tuple(more))), None

        others = jax.tree.map(lambda a: jnp.zeros_like(a) if _is_smooth(a) else None, rest)
        count = len(jax.tree.leaves(values)[0])
        carry, steps = (cotangent, sums, others), (jnp.arange(count), values, inputs)
        (cotangent, sums, others), _ = jax.lax.scan(body, carry, steps, reverse=True)
        return None, sums, cotangent, others

    units.defvjp(forward, backward)
    return units(values, sums, x, rest)


def any_probed(params: Any) -> bool:
    """Whether parameters are to be measured."""
    return any(map(is_probed, jax.tree.leaves(params, is_leaf=is_probed)))


def _apart(params: Any) -> tuple[Any, Any, bool]:
    """Values and sums of probed parameters, and whether they are of all examples together."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_probed)
    if not all(map(is_probed, leaves)):
        raise ValueError("squares are of whole units: measure all parameters of a layer, or none")
    return (
        treedef.unflatten([leaf.value for leaf in leaves]),
        treedef.unflatten([leaf.sums for leaf in leaves]),
        leaves[0].whole,
    )


def _is_smooth(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _pull_back(
    call: Callable,
    values: Any,
    activations: Any,
    cotangents: Any,
    whole: bool,
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """Squared gradients, of all examples or summed over them, and cotangents of the activations."""
    if whole:
        gradients, smooth = _gradients(call, values, activations, cotangents)
        return jax.tree.map(_square, gradients), smooth

    def example(activations, cotangents):
        one = jax.tree.map(lambda a: a[None], (activations, cotangents))
        gradients, smooth = _gradients(call, values, *one)
        return gradients, jax.tree.map(lambda a: a[0], smooth)

    # The examples, which are taken out of the unit's sight here, stay split over the mesh. Where
    # there is but one part, the unit itself may say so of its single example, and not twice.
    parts = 1 if mesh is None else batch_parts(mesh.axis_sizes)
    split = batch_sharding(mesh).spec[0] if mesh is not None and parts > 1 else None
    gradients, smooth = jax.vmap(example, spmd_axis_name=split)(activations, cotangents)
    return jax.tree.map(_sum_of_squares, gradients), smooth


def _gradients(call: Callable, values: Any, activations: Any, cotangents: Any) -> tuple[Any, Any]:
    """Of the values, and of the activations, None where these are whole numbers."""
    arrays, structure = jax.tree.flatten(activations)

    def smoothly(values, smooth):
        given = [a if s is None else s for a, s in zip(arrays, smooth, strict=True)]
        return call(values, structure.unflatten(given))

    smooth = [a if _is_smooth(a) else None for a in arrays]
    gradients, smooth = jax.vjp(smoothly, values, smooth)[1](cotangents)
    return gradients, structure.unflatten(smooth)


def spread(probed: Probed, batch: int) -> jax.Array:
    """Gives every example its own copy of a matrix that two units share (a tied head).

    Use the copy in both places: squares are then of the *summed* gradient, which no unit by itself
    could know.

    Args:
        probed: a parameter of shape [V, D].
        batch: number of examples B.

    Returns:
        [B, V, D]; or, where all examples' gradient is squared, [V, D] for all of them.
    """
    shape = probed.value.shape

    @jax.custom_vjp
    def copies(value, sums):
        return value if probed.whole else jnp.broadcast_to(value, (batch, *shape))

    def forward(value, sums):
        return copies(value, sums), sums

    def backward(sums, cotangents):
        squares = _square(cotangents) if probed.whole else _sum_of_squares(cotangents)
        return None, sums + squares

    copies.defvjp(forward, backward)
    return copies(probed.value, probed.sums)


def _square(gradient: jax.Array) -> jax.Array:
    return jnp.square(gradient.astype(jnp.float32))


def _sum_of_squares(gradients: jax.Array) -> jax.Array:
    """Sum over the example axis of [B, ...], in float32."""

    def contract(squares):
        return jnp.tensordot(jnp.ones(len(squares)), squares, 1, precision="highest")

    # XLA's sum over a leading axis is ten times slower than a product with ones on a CPU.
    return jax.lax.platform_dependent(
        _square(gradients), cpu=contract, default=lambda squares: jnp.sum(squares, axis=0)
    )
