"""Squared gradients, of every example or of the batch, by one backward pass.

The Fisher diagonal of the method (paper, importance equation) is a mean over examples of *squared*
gradients. `jax.grad` of a batch cannot compute it. Therefore a model is cut into units. Every unit
is called through `run`, and stacked units through `scan`. Where the parameters of a unit are
`Probed`, its backward pass adds the squared gradients of the batch's examples to `Probed.sums` and
returns the result as the cotangent of `Probed.sums`. Activations get their ordinary cotangents.
`jax.grad` of the summed loss with respect to the sums therefore returns the new sums. They are
float32 whatever the dtype of the weights (D-05: squares in float16 underflow). The memory holds
one gradient of one unit, and its squares, for each local example or, where examples share a
picture, for each local picture. The sums of stacked units are updated in place.

Squares of a batch's gradient (D-06: they depend on the batch size) are computed in the same way,
unit by unit, so that the gradient of the whole model never exists.

Consecutive examples may ask about one picture (`Shared`). A unit that computes the same for all of
them then runs forward once, and is linearised once; only its pull-back runs for each, in turn.
`prefixes` does so for the decoder's layers, where the examples have only their first tokens in
common.

    def loss(sums):
        sums, nothing = keep(sums)
        return loss_sum(nnx.merge(graphdef, probe(params, sums))) + nothing

    sums = jax.grad(loss)(sums)
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh

from mmunlearner_jax.models.consecutive import firsts, grouped, joined, repeated
from mmunlearner_jax.models.sums import add_squares, no_squares, squared, total
from mmunlearner_jax.sharding import batch_parts, batch_sharding, by_example

# What is added to the sums: the squares of each example's gradient, or those of the gradient of all
# examples together.
Kind = Literal["examples", "batch"]


@dataclass(frozen=True)
class Shared:
    """What consecutive examples have in common, besides their picture.

    Attributes:
        examples: Number of consecutive examples that ask about one picture.
        tokens: Number of tokens, from the first, that they have in common in the decoder.
    """

    examples: int = 1
    tokens: int = 0


@jax.tree_util.register_dataclass
@dataclass
class Probed:
    """A parameter whose squared gradients are summed; it takes the place of the array in a tree.

    Attributes:
        value: The parameter.
        sums: Sums so far, float32 with the shape of `value`. Their cotangent is `sums` plus what
            this batch adds.
        kind: What is added.
        shared: What consecutive examples have in common; only for squares of examples.
    """

    value: Any
    sums: Any
    kind: Kind = field(default="examples", metadata={"static": True})
    shared: Shared = field(default_factory=Shared, metadata={"static": True})


def is_probed(x: Any) -> TypeGuard[Probed]:
    """Returns whether a leaf is a `Probed`."""
    return isinstance(x, Probed)


def probe(params: Any, sums: Any, *, kind: Kind = "examples", shared: Shared = Shared()) -> Any:
    """Pairs a tree of parameters with a tree of sums of the same structure, leaf by leaf.

    Args:
        params: Parameters of a model.
        sums: Sums so far, as in `Probed`.
        kind: What is added to them.
        shared: What consecutive examples have in common, as in `Probed`.
    """
    return jax.tree.map(lambda value, sums: Probed(value, sums, kind, shared), params, sums)


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
    alone: bool = False,
    keep_all: bool = False,
) -> Any:
    """Calls `module(*activations)` as a unit; sums squares where its parameters are `Probed`.

    Args:
        module: A module whose parameters are in no other unit. For squares of each example, it must
            treat every example by itself.
        *activations: Pytrees of arrays [B, ...].
        call: Function `(module, *activations)` that replaces `module(*activations)`.
        alone: Whether the activations of examples differ that ask about one picture.
        keep_all: As in `scan`.

    Returns:
        The result of the call, arrays [B, ...].
    """
    graphdef, params = nnx.split(module)
    if not any_probed(params):
        return call(module, *activations)
    values, sums, kind, shared = apart(params)
    count = 1 if alone else shared.examples
    keep_all = keep_all and kind != "examples"

    def merged(values, activations):
        return call(nnx.merge(graphdef, values), *activations)

    @jax.custom_vjp
    def unit(values, sums, activations):
        return forward(values, sums, activations)[0]

    def forward(values, sums, activations):
        activations = firsts(activations, count)
        if keep_all:
            out, kept = _vjp(merged, values, activations)
        else:
            out, kept = merged(values, activations), (values, activations)
        return repeated(out, count), (sums, kept)

    def backward(residuals, cotangents):
        sums, kept = residuals
        if keep_all:
            gradients, smooth = kept(cotangents)
            squares = jax.tree.map(squared, gradients)
        else:
            values, activations = kept
            squares, smooth = _pull_back(merged, values, activations, cotangents, kind, count)
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
    keep_all: bool = False,
) -> jax.Array:
    """Calls stacked units one after the other: `x = unit(x, *rest, *own)`; all are `Probed`.

    Only the inputs of the units are kept for the backward pass, which runs each unit once more. For
    the gradient of all examples together, all of its residuals may be kept instead.

    Args:
        graphdef: Graph definition of one unit.
        params: Parameters of all units, `Probed`, with a leading axis of units.
        x: Input of the first unit [B, ...].
        *rest: Pytrees of arrays [B, ...] that every unit takes.
        mesh: Devices that the examples are split over, also within a unit (a kernel under
            `jax.shard_map`).
        each: Arrays with a leading axis of units, whose part of a unit is its `own`.
        keep_all: Whether no unit runs once more, as for squares of examples all do.
    """
    values, sums, kind, shared = apart(params)

    def call(own, values, activations):
        x, *rest = activations
        return by_example(nnx.merge(graphdef, values)(by_example(x, mesh), *rest, *own), mesh)

    ahead, back = _passes(call, kind, shared.examples, mesh, keep_all)

    @jax.custom_vjp
    def units(values, sums, x, rest):
        return forward(values, sums, x, rest)[0]

    def forward(values, sums, x, rest):
        x, rest = firsts((x, rest), shared.examples)
        out, kept = jax.lax.scan(lambda x, unit: ahead(*unit, (x, *rest)), x, (each, values))
        return repeated(out, shared.examples), (values, sums, kept, rest)

    def backward(residuals, cotangent):
        values, sums, kept, rest = residuals

        # The sums are in the carry and not in the scanned inputs: so XLA adds to them in place.
        def body(carry, unit):
            (cotangent, sums, others), (index, *unit) = carry, unit
            squares, (cotangent, *more) = back(*unit, rest, cotangent)
            sums = jax.tree.map(lambda s, q: s.at[index].add(q), sums, squares)
            return (cotangent, sums, jax.tree.map(jnp.add, others, tuple(more))), None

        others = jax.tree.map(jnp.zeros_like, repeated(_smooth(rest), shared.examples))
        carry = cotangent, sums, others
        steps = jnp.arange(len(jax.tree.leaves(values)[0])), each, values, kept
        (cotangent, sums, others), _ = jax.lax.scan(body, carry, steps, reverse=True)
        return None, sums, cotangent, others

    units.defvjp(forward, backward)
    return units(values, sums, x, rest)


def _passes(
    call: Callable, kind: Kind, count: int, mesh: Mesh | None, keep_all: bool
) -> tuple[Callable, Callable]:
    """Returns the forward and the backward pass of one of the units that `scan` calls.

    The first one is `(own, values, inputs) -> (output, kept)`, and the second one `(own, values,
    kept, rest, cotangent) -> (squares, cotangents of the inputs)`.
    """

    def run_and_keep(own, values, inputs):
        return _vjp(functools.partial(call, own), values, inputs)

    def pull(own, values, kept, rest, cotangent):
        gradients, smooth = kept(cotangent)
        return jax.tree.map(squared, gradients), smooth

    def run(own, values, inputs):
        return call(own, values, inputs), inputs[0]

    def run_again(own, values, x, rest, cotangent):
        one = functools.partial(call, own)
        return _pull_back(one, values, (x, *rest), cotangent, kind, count, mesh)

    return (run_and_keep, pull) if keep_all and kind != "examples" else (run, run_again)


def any_probed(params: Any) -> bool:
    """Returns whether a tree holds a `Probed`."""
    return any(map(is_probed, jax.tree.leaves(params, is_leaf=is_probed)))


def apart(params: Any) -> tuple[Any, Any, Kind, Shared]:
    """Returns the values, the sums, the kind and what is shared of probed parameters."""
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
        leaves[0].shared,
    )


def _smooth(tree: Any) -> Any:
    """Returns the arrays that have gradients, and None in place of whole numbers."""
    return jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.floating) else None, tree)


def _pull_back(
    call: Callable,
    values: Any,
    activations: Any,
    cotangents: Any,
    kind: Kind,
    count: int,
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """Returns what a batch adds to the sums, and the cotangents of the activations.

    The cotangents are arrays [B, ...], the activations [B / count, ...]. `count` is 1 unless
    squares of examples are added.
    """
    if kind != "examples":
        gradients, smooth = _vjp(call, values, activations)[1](cotangents)
        return jax.tree.map(squared, gradients), smooth

    def example(activations, cotangents):
        out, pull = _vjp(call, values, jax.tree.map(lambda a: a[None], activations))

        # One question after the other, so that one gradient of the unit exists at a time.
        def one(squares, cotangents):
            gradients, smooth = pull(jax.tree.map(lambda a: a[None], cotangents))
            return add_squares(squares, gradients), jax.tree.map(lambda a: a[0], smooth)

        if count == 1:
            return one(no_squares(values), cotangents)
        pull = linear(pull, out)
        return jax.lax.scan(one, no_squares(values), cotangents)

    squares, smooth = over_examples(example, mesh)(activations, grouped(cotangents, count))
    return jax.tree.map(total, squares), joined(smooth, count)


def linear(pull: Callable, out: Any) -> Callable:
    """Returns a pull-back for a loop: what depends on no cotangent is computed now, and once.

    Args:
        pull: Linear function of the cotangents of `out`.
        out: The results that it pulls back from.
    """
    return jax.linearize(pull, jax.tree.map(jnp.zeros_like, out))[1]


def over_examples(function: Callable, mesh: Mesh | None) -> Callable:
    """Returns a function that maps another one over the first axis of its arguments.

    `vmap` hides the example axis from the units. `spmd_axis_name` keeps it split over the mesh. It
    is left out where there is only one part: the unit may then constrain its one example itself,
    and no axis may be named twice.
    """
    parts = 1 if mesh is None else batch_parts(mesh.axis_sizes)
    split = batch_sharding(mesh).spec[0] if mesh is not None and parts > 1 else None
    return jax.vmap(function, spmd_axis_name=split)


def _vjp(call: Callable, values: Any, activations: Any) -> tuple[Any, Callable[..., Any]]:
    """Returns `call(values, activations)`, and the function from cotangents to gradients.

    The gradients are those of the values and of the activations (None for whole numbers).
    """

    def smoothly(values, smooth):
        mixed = jax.tree.map(
            lambda s, a: a if s is None else s, smooth, activations, is_leaf=lambda x: x is None
        )
        return call(values, mixed)

    return jax.vjp(smoothly, values, _smooth(activations))


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
        squares = squared(cotangents)
        return None, sums + (total(squares) if probed.kind == "examples" else squares)

    copies.defvjp(forward, backward)
    return copies(probed.value, probed.sums)
