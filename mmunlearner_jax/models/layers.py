"""The few pieces that the vision tower and the language model share.

Axes: B examples.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import squares
from mmunlearner_jax.models.low_rank import LoRA
from mmunlearner_jax.sharding import by_example

M = TypeVar("M", bound=nnx.Module)

# One object for all modules: a graph definition compares it by identity.
INIT = nnx.initializers.normal(0.02)
# Of matrices: transformers' constant 0.02 would leave narrow models all but linear at first.
KERNEL_INIT = nnx.initializers.lecun_normal()

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}

REMAT: dict[str, Callable[[Callable], Callable]] = {
    "none": lambda body: body,
    "full": functools.partial(jax.checkpoint, prevent_cse=False),
    "dots": functools.partial(
        jax.checkpoint,
        prevent_cse=False,
        policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    ),
}


def choose(table: dict[str, Any], field: str, name: str) -> Any:
    """Looks a configured name up in a table.

    Raises:
        InputError: the table has no such name.
    """
    if name not in table:
        raise InputError(f"{field}={name!r} is not supported; use one of {', '.join(table)}")
    return table[name]


class Linear(nnx.Linear):
    """A linear layer that sees all tokens as one matrix, whatever axes they have.

    The gradient of its kernel is then a product of two matrices. On a CPU, XLA would copy what has
    more axes into another order first, and the whole backward pass takes twice as long.

    Attributes:
        lora: what is added to the kernel; None: nothing.
    """

    lora: LoRA | None = None

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., in] to [..., out]."""
        *lead, features = inputs.shape
        inputs = inputs.reshape(-1, features)
        outputs = super().__call__(inputs) if self.lora is None else self._adapted(inputs)
        return outputs.reshape(*lead, self.out_features)

    def product(self, x: jax.Array, *shape: int) -> jax.Array:
        """Of x [..., in] and the kernel, its output axis split: [..., *shape]; no bias."""
        kernel = self.kernel.get_value()
        if self.lora is not None:
            return self.lora.product(x, kernel, shape, self.preferred_element_type)
        return jnp.tensordot(x, kernel.astype(x.dtype).reshape(-1, *shape), 1)

    def _adapted(self, inputs: jax.Array) -> jax.Array:
        dtype = self.dtype or jnp.result_type(inputs, self.kernel.get_value())
        outputs = self.product(inputs.astype(dtype), self.out_features)
        return outputs if self.bias is None else outputs + self.bias.get_value().astype(dtype)


def linear(
    features_in: int,
    features_out: int,
    logical: tuple[str, str],
    *,
    bias: bool,
    dtype: str | None,
    rngs: nnx.Rngs,
    **kwargs: Any,
) -> Linear:
    """A linear layer whose kernel [in, out] and bias [out] carry logical axis names."""
    return Linear(
        features_in,
        features_out,
        use_bias=bias,
        dtype=dtype,
        kernel_init=KERNEL_INIT,
        kernel_metadata={"logical": logical},
        bias_metadata={"logical": logical[1:]},
        rngs=rngs,
        **kwargs,
    )


def layer_norm(
    features: int, epsilon: float, logical: str, *, dtype: str | None, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """A normalisation with scale and bias [features] of that logical axis."""
    return nnx.LayerNorm(
        features,
        epsilon=epsilon,
        dtype=dtype,
        use_fast_variance=False,
        scale_metadata={"logical": (logical,)},
        bias_metadata={"logical": (logical,)},
        rngs=rngs,
    )


def stack(layer: Callable[[nnx.Rngs], M], length: int, rngs: nnx.Rngs) -> M:
    """Builds `length` equal layers as one module whose parameters have a leading layer axis."""
    return nnx.split_rngs(splits=length)(nnx.vmap(layer))(rngs)


def scan(
    layers: nnx.Module,
    x: jax.Array,
    *rest: Any,
    remat: str,
    mesh: Mesh | None,
    length: int | None = None,
) -> jax.Array:
    """Runs the first `length` (default: all) of stacked layers, each as one unit.

    Args:
        layers: what `stack` made; called as `layer(x, *rest) -> x`.
        x: [B, ...], what flows from layer to layer.
        *rest: activations [B, ...] that every layer gets.
        remat: what the backward pass recomputes, a name of `REMAT`; squares recompute all.
        mesh: splits the examples; None: one device.
        length: how many layers to run.
    """
    graphdef, params = nnx.split(layers)
    params = jax.tree.map(lambda p: p[:length], params)
    if squares.any_probed(params):
        return squares.scan(graphdef, params, by_example(x, mesh), *rest, mesh=mesh)

    def body(x, params):
        return by_example(nnx.merge(graphdef, params)(by_example(x, mesh), *rest), mesh), None

    return jax.lax.scan(REMAT[remat](body), by_example(x, mesh), params)[0]


def compiled(method: Callable) -> Callable:
    """Makes a pure method of a module one jitted function, shared by all equal modules.

    What is passed by name is static. A scan outside `jit` is compiled anew at every call.
    """

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def call(graphdef, options, params, args):
        return method(nnx.merge(graphdef, params), *args, **dict(options))

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        graphdef, params = nnx.split(self)
        return call(graphdef, tuple(sorted(kwargs.items())), params, args)

    return wrapper
