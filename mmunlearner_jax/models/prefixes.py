"""Squares of examples whose first tokens are the same: the decoder's layers compute these once.

The questions about a picture have the picture in common, and the tokens before it. The forward pass
of a layer, and its recomputation, run over this prefix once for all questions, and over the own
tokens of each. The backward pass runs once for every question, over the prefix and its own tokens.
The squares are those that `squares.scan` computes.

Axes: B examples, G groups of them (one for a picture), T tokens, P tokens of a prefix, D features.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.models import attention
from mmunlearner_jax.models.consecutive import firsts, grouped, joined, repeated
from mmunlearner_jax.models.rope import Rope
from mmunlearner_jax.models.squares import any_probed, apart, linear, over_examples
from mmunlearner_jax.models.sums import add_squares, no_squares, total
from mmunlearner_jax.sharding import by_example


def shared(layers: nnx.Module) -> bool:
    """Returns whether the squares of stacked layers are those of examples that share tokens."""
    params = nnx.split(layers)[1]
    return any_probed(params) and apart(params)[3].tokens > 0


def scan(
    layers: nnx.Module, x: jax.Array, rope: Rope, valid: jax.Array, *, mesh: Mesh | None
) -> jax.Array:
    """Calls the decoder's stacked layers one after the other, as `squares.scan` does.

    Args:
        layers: The layers, whose parameters are `squares.Probed`; `Probed.shared` says how many
            examples share how many tokens.
        x: Input of the first layer [B, T, D].
        rope: Rotary angles [B, T, ...].
        valid: Whether a token is no padding, bool [B, T].
        mesh: Devices that the examples are split over; None: one device.

    Returns:
        The output of the last layer [B, T, D].
    """
    graphdef, params = nnx.split(layers)
    values, sums, _, share = apart(params)
    count, tokens = share.examples, share.tokens
    pull_back = functools.partial(_pull_back, graphdef, count, mesh)

    def cut(tree):
        prefix = firsts(jax.tree.map(lambda a: a[:, :tokens], tree), count)
        return prefix, jax.tree.map(lambda a: a[:, tokens:], tree)

    @jax.custom_vjp
    def units(values, sums, x, rest):
        return forward(values, sums, x, rest)[0]

    def forward(values, sums, x, rest):
        common, own = rest = cut(rest)

        def body(inputs, values):
            layer = nnx.merge(graphdef, values)
            prefix, x = (by_example(a, mesh) for a in inputs)
            prefix, store = _begin(layer, prefix, common)
            x = _go_on(layer, x, own, repeated((*store, common[1]), count))
            return (prefix, x), inputs

        (prefix, x), inputs = jax.lax.scan(body, cut(x), values)
        out = jnp.concatenate([repeated(prefix, count), x], axis=1)
        return by_example(out, mesh), (values, sums, inputs, rest)

    def backward(residuals, cotangent):
        values, sums, inputs, rest = residuals

        # The sums are in the carry, as in `squares.scan`.
        def body(carry, unit):
            cotangents, sums = carry
            index, values, inputs = unit
            squares, cotangents = pull_back(values, inputs, rest, cotangents)
            return (cotangents, jax.tree.map(lambda s, q: s.at[index].add(q), sums, squares)), None

        steps = jnp.arange(len(inputs[0])), values, inputs
        carry = (cotangent[:, :tokens], cotangent[:, tokens:]), sums
        (cotangents, sums), _ = jax.lax.scan(body, carry, steps, reverse=True)
        return None, sums, jnp.concatenate(cotangents, axis=1), None  # angles have no gradient

    units.defvjp(forward, backward)
    return units(values, sums, by_example(x, mesh), (rope, valid))


def _pull_back(graphdef, count, mesh, values, inputs, rest, cotangents):
    """Returns what a layer adds to the sums, and the cotangents of its inputs.

    `inputs` are the prefixes [G, P, D] and the other tokens [B, T, D], `rest` the angles and the
    validity of both; the cotangents of the prefixes are [B, P, D].
    """
    (prefix, x), (common, own) = inputs, rest

    def picture(prefix, common, x, own, cotangents):
        common = _one(common)
        out, pull = jax.vjp(
            lambda values, prefix: _begin(nnx.merge(graphdef, values), prefix[None], common),
            *(values, prefix),
        )
        store, pull = out[1], linear(pull, out)

        # One question after the other, so that one gradient of the layer exists at a time.
        def question(squares, asked):
            x, own, cotangents = asked

            def go_on(values, x, store):
                layer, before = nnx.merge(graphdef, values), (*store, common[1])
                return _go_on(layer, x[None], _one(own), before)[0]

            of_own, x, of_store = jax.vjp(go_on, values, x, store)[1](cotangents[1])
            gradients, prefix = pull((cotangents[0][None], of_store))
            gradients = jax.tree.map(jnp.add, gradients, of_own)
            return add_squares(squares, gradients), (prefix, x)

        return jax.lax.scan(question, no_squares(values), (x, own, cotangents))

    arguments = prefix, common, *grouped((x, own, cotangents), count)
    squares, cotangents = over_examples(picture, mesh)(*arguments)
    return jax.tree.map(total, squares), joined(cotangents, count)


def _one(tree):
    return jax.tree.map(lambda a: a[None], tree)


def _begin(layer, x, rest):
    """Returns a layer's output for prefixes [G, P, D], and their keys and values."""
    rope, valid = rest
    q, k, v = layer.project(x, rope)
    attended = attention.causal(
        q, k, v, valid, window=layer.config.window, kernel=layer.kernel, mesh=layer.mesh
    )
    return layer.finish(x, attended), (k, v)


def _go_on(layer, x, rest, before):
    """Returns a layer's output for tokens [B, T, D] that follow prefixes, see `attention.after`."""
    rope, valid = rest
    q, k, v = layer.project(x, rope)
    attended = attention.after(q, k, v, valid, before, layer.config.window)
    return layer.finish(x, attended)
