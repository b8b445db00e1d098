"""Squared gradients, of every example or of the batch, by one backward pass.

The Fisher diagonal of the method (paper, importance equation) is a mean over examples of *squared*
gradients. `jax.grad` of a batch cannot compute it. Therefore a model is cut into units. Every unit
is called through `run`, and stacked units through `scan`. Where the parameters of a unit are
`Probed`, its backward pass adds the squared gradients of the batch's examples to `Probed.sums` and
returns the result as the cotangent of `Probed.sums`. Activations get their ordinary cotangents.
`jax.grad` of the summed loss with respect to the sums therefore returns the new sums. They are
float32 whatever the dtype of the weights (D-05: squares in float16 underflow). The memory holds the
gradient of one unit for each local example. The sums of stacked units are updated in place.

Squares of a batch's gradient (D-06: they depend on the batch size) are computed in the same way,
unit by unit, so that the gradient of the whole model never exists. And so is the gradient of
several batches: each adds its own in place, where `jax.grad` would keep one for each batch.

    def loss(sums):
        sums, nothing = keep(sums)
        return loss_sum(nnx.merge(graphdef, probe(params, sums))) + nothing

    sums = jax.grad(loss)(sums)
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh

from mmunlearner_jax.sharding import batch_parts, batch_sharding, by_example

# What is added to the sums: the squares of each example's gradient, those of the gradient of all
# examples together, or that gradient itself.
Kind = Literal["examples", "batch", "gradient"]


@jax.tree_util.register_dataclass
@dataclass
class Probed:
    """A parameter whose squared gradients are summed; it takes the place of the array in a tree.

    Attributes:
        value: The parameter.
        sums: Sums so far, with the shape of `value`: float32 of squares, or a gradient in its
            dtype. Their cotangent is `sums` plus what this batch adds.
        kind: What is added.
    """

    value: Any
    sums: Any
    kind: Kind = field(default="examples", metadata={"static": True})


def is_probed(x: Any) -> TypeGuard[Probed]:
    """Returns whether a leaf is a `Probed`."""
    return isinstance(x, Probed)


def probe(params: Any, sums: Any, *, kind: Kind = "examples") -> Any:
    """Pairs a tree of parameters with a tree of sums of the same structure, leaf by leaf.

    Args:
        params: Parameters of a model.
        sums: Sums so far, as in `Probed`.
        kind: What is added to them.
    """
    return jax.tree.map(lambda value, sums: Probed(value, sums, kind), params, sums)


def keep(sums: Any) -> tuple[Any, jax.Array]:
    """Keeps the sums of parameters that a batch does not use (the vision tower without pictures).

    Returns:
        The sums to pass to `probe`, and a scalar 0 that must be added to the loss.
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
    """Calls `module(*activations)` as a unit; sums squares where its parameters are `Probed`.

    Args:
        module: A module whose parameters are in no other unit. For squares of each example, it must
            treat every example by itself.
        *activations: Pytrees of arrays [B, ...].
        call: Function `(module, *activations)` that replaces `module(*activations)`.

    Returns:
        The result of the call, arrays [B, ...].
    """
    graphdef, params = nnx.split(module)
    if not any_probed(params):
        return call(module, *activations)
    values, sums, kind = _apart(params)

    def merged(values, activations):
        return call(nnx.merge(graphdef, values), *activations)

    @jax.custom_vjp
    def unit(values, sums, activations):
        return merged(values, activations)

    def forward(values, sums, activations):
        return merged(values, activations), (values, sums, activations)

    def backward(residuals, cotangents):
        values, sums, activations = residuals
        squares, smooth = _pull_back(merged, values, activations, cotangents, kind)
        return None, jax.tree.map(jnp.add, sums, squares), smooth

    unit.defvjp(forward, backward)
    return unit(values, sums, activations)


def scan(
    graphdef: nnx.GraphDef,
    params: Any,
    x: jax.Array,
    *rest: Any,
    mesh: Mesh | None,
    each: tuple[np.ndarray, ...] = (),
) -> jax.Array:
    """Calls stacked units one after the other: `x = unit(x, *rest, *own)`; all are `Probed`.

    Only the inputs of the units are kept for the backward pass, which runs each unit once more.

    Args:
        graphdef: Graph definition of one unit.
        params: Parameters of all units, `Probed`, with a leading axis of units.
        x: Input of the first unit [B, ...].
        *rest: Pytrees of arrays [B, ...] that every unit takes.
        mesh: Devices that the examples are split over, also within a unit (a kernel under
            `jax.shard_map`).
        each: Arrays with a leading axis of units, whose part of a unit is its `own`.
    """
    values, sums, kind = _apart(params)

    def call(own, values, activations):
        x, *rest = activations
        return by_example(nnx.merge(graphdef, values)(by_example(x, mesh), *rest, *own), mesh)

    @jax.custom_vjp
    def units(values, sums, x, rest):
        return forward(values, sums, x, rest)[0]

    def forward(values, sums, x, rest):
        def body(x, unit):
            own, values = unit
            return call(own, values, (x, *rest)), x

        out, inputs = jax.lax.scan(body, x, (each, values))
        return out, (values, sums, inputs, rest)

    def backward(residuals, cotangent):
        values, sums, inputs, rest = residuals

        # The sums are in the carry and not in the scanned inputs: so XLA adds to them in place.
        def body(carry, unit):
            cotangent, sums, others = carry
            index, own, values, x = unit
            inputs, one = (x, *rest), functools.partial(call, own)
            squares, (cotangent, *more) = _pull_back(one, values, inputs, cotangent, kind, mesh)
            sums = jax.tree.map(lambda s, q: s.at[index].add(q), sums, squares)
            return (cotangent, sums, jax.tree.map(jnp.add, others, tuple(more))), None

        others = jax.tree.map(lambda a: jnp.zeros_like(a) if _is_smooth(a) else None, rest)
        count = len(jax.tree.leaves(values)[0])
        carry, steps = (cotangent, sums, others), (jnp.arange(count), each, values, inputs)
        (cotangent, sums, others), _ = jax.lax.scan(body, carry, steps, reverse=True)
        return None, sums, cotangent, others

    units.defvjp(forward, backward)
    return units(values, sums, x, rest)


def any_probed(params: Any) -> bool:
    """Returns whether a tree holds a `Probed`."""
    return any(map(is_probed, jax.tree.leaves(params, is_leaf=is_probed)))


def _apart(params: Any) -> tuple[Any, Any, Kind]:
    """Returns the values, the sums and the kind of probed parameters."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_probed)
    if not all(map(is_probed, leaves)):
        raise ValueError(
            "some parameters of a layer are measured and others are not: measure all of them, or"
            " none"
        )
    return (
        treedef.unflatten([leaf.value for leaf in leaves]),
        treedef.unflatten([leaf.sums for leaf in leaves]),
        leaves[0].kind,
    )


def _is_smooth(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _pull_back(
    call: Callable,
    values: Any,
    activations: Any,
    cotangents: Any,
    kind: Kind,
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """Returns what a batch adds to the sums, and the cotangents of the activations."""
    if kind != "examples":
        gradients, smooth = _gradients(call, values, activations, cotangents)
        return jax.tree.map(_OF_BATCH[kind], gradients), smooth

    def example(activations, cotangents):
        one = jax.tree.map(lambda a: a[None], (activations, cotangents))
        gradients, smooth = _gradients(call, values, *one)
        return gradients, jax.tree.map(lambda a: a[0], smooth)

    # `vmap` hides the example axis from the unit. `spmd_axis_name` keeps it split over the mesh. It
    # is left out where there is only one part: the unit may then constrain its one example itself,
    # and no axis may be named twice.
    parts = 1 if mesh is None else batch_parts(mesh.axis_sizes)
    split = batch_sharding(mesh).spec[0] if mesh is not None and parts > 1 else None
    gradients, smooth = jax.vmap(example, spmd_axis_name=split)(activations, cotangents)
    return jax.tree.map(_sum_of_squares, gradients), smooth


def _gradients(call: Callable, values: Any, activations: Any, cotangents: Any) -> tuple[Any, Any]:
    """Returns the gradients of the values and of the activations (None for whole numbers)."""
    arrays, structure = jax.tree.flatten(activations)

    def smoothly(values, smooth):
        mixed = [a if s is None else s for a, s in zip(arrays, smooth, strict=True)]
        return call(values, structure.unflatten(mixed))

    smooth = [a if _is_smooth(a) else None for a in arrays]
    gradients, smooth = jax.vjp(smoothly, values, smooth)[1](cotangents)
    return gradients, structure.unflatten(smooth)


def spread(probed: Probed, batch: int) -> jax.Array:
    """Gives every example its own copy of a matrix that two units share (a tied head).

    Use the copy in both places. Then the *sum* of both places' gradients is squared, which neither
    unit knows by itself.

    Args:
        probed: A parameter of shape [V, D].
        batch: Number of examples B.

    Returns:
        The copies [B, V, D]; or one matrix [V, D] where the gradient of all examples together is
        squared.
    """
    shape = probed.value.shape

    @jax.custom_vjp
    def copies(value, sums):
        return jnp.broadcast_to(value, (batch, *shape)) if probed.kind == "examples" else value

    def forward(value, sums):
        return copies(value, sums), sums

    def backward(sums, cotangents):
        return None, sums + _OF_BATCH.get(probed.kind, _sum_of_squares)(cotangents)

    copies.defvjp(forward, backward)
    return copies(probed.value, probed.sums)


def _square(gradient: jax.Array) -> jax.Array:
    return jnp.square(gradient.astype(jnp.float32))


def _sum_of_squares(gradients: jax.Array) -> jax.Array:
    """Returns the sum over B of the squares of [B, ...], in float32."""

    def contract(squares):
        return jnp.tensordot(jnp.ones(len(squares)), squares, 1, precision="highest")

    # On a CPU, XLA's sum over a leading axis is ten times slower than a product with ones.
    return jax.lax.platform_dependent(
        _square(gradients), cpu=contract, default=lambda squares: jnp.sum(squares, axis=0)
    )


# What the gradient of all examples together adds to the sums.
_OF_BATCH: Mapping[Kind, Callable[[jax.Array], jax.Array]] = {
    "batch": _square,
    "gradient": lambda gradient: gradient,
}
