"""The layers and functions that the vision towers and the language model share.

Axes: B examples.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import squares
from mmunlearner_jax.models.low_rank import LoRA
from mmunlearner_jax.sharding import by_example

M = TypeVar("M", bound=nnx.Module)

# All modules share one object, because graph definitions compare initializers by identity.
INIT = nnx.initializers.normal(0.02)
# For matrices. With transformers' constant 0.02, narrow models would start almost linear.
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
        InputError: The table lacks the name.
    """
    if name not in table:
        raise InputError(f"{field}={name!r} is not supported; use one of {', '.join(table)}")
    return table[name]


class Linear(nnx.Linear):
    """A linear layer that joins all leading axes of its input into one.

    The gradient of the kernel is then a product of two matrices. With more axes, XLA would first
    copy the arrays into another order on a CPU, and the whole backward pass would take twice as
    long.

    Attributes:
        lora: The adapter that is added to the kernel, if any.
    """

    lora: LoRA | None = None

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., out]."""
        *lead, features = inputs.shape
        inputs = inputs.reshape(-1, features)
        outputs = super().__call__(inputs) if self.lora is None else self._adapted(inputs)
        return outputs.reshape(*lead, self.out_features)

    def product(self, x: jax.Array, *shape: int) -> jax.Array:
        """Returns x [..., in] times the kernel without bias, as [..., *shape]."""
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
    """Returns a linear layer whose kernel [in, out] and bias [out] carry logical axis names."""
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
    """Returns a layer norm whose scale and bias [features] carry the logical axis name."""
    return nnx.LayerNorm(
        features,
        epsilon=epsilon,
        dtype=dtype,
        use_fast_variance=False,
        scale_metadata={"logical": (logical,)},
        bias_metadata={"logical": (logical,)},
        rngs=rngs,
    )


def rms_norm(
    features: int, epsilon: float, logical: str, *, dtype: str | None, rngs: nnx.Rngs
) -> nnx.RMSNorm:
    """Returns an RMS norm whose scale [features] carries the logical axis name."""
    return nnx.RMSNorm(
        features,
        epsilon=epsilon,
        dtype=dtype,
        scale_metadata={"logical": (logical,)},
        rngs=rngs,
    )


def stack(layer: Callable[[nnx.Rngs], M], length: int, rngs: nnx.Rngs) -> M:
    """Builds `length` equal layers as one module whose parameters have a leading layer axis."""
    return nnx.split_rngs(splits=length)(nnx.vmap(layer))(rngs)


def scan(
    layers: nnx.Module,
    *batches: Sequence[Any],
    remat: str,
    mesh: Mesh | None,
    length: int | None = None,
    each: tuple[np.ndarray, ...] = (),
) -> list[jax.Array]:
    """Runs stacked layers one after the other, each as one unit of `squares`.

    A layer runs on all batches before the next one does, so that its weights are gathered once for
    all of them, and their gradient is one array. Units of `squares` run on one batch at a time.

    Args:
        layers: Layers that `stack` returned; each is called as `layer(x, *rest, *own) -> x`.
        *batches: For each batch, the input of the first layer x [B, ...] and the arrays [B, ...]
            that every layer takes, `rest`.
        remat: What the backward pass recomputes, a key of `REMAT`. Squares of examples recompute
            all, and so do those of a batch unless this is "none".
        mesh: Devices that the examples are split over; None: one device.
        length: Number of layers to run, from the first; None: all.
        each: Arrays [L, ...], whose part of a layer is its `own`.

    Returns:
        The output of the last layer for each batch, [B, ...].
    """
    graphdef, params = nnx.split(layers)
    params = jax.tree.map(lambda p: p[:length], params)
    inputs, others = [by_example(x, mesh) for x, *_ in batches], [rest for _, *rest in batches]
    if squares.any_probed(params):
        run = functools.partial(
            squares.scan, graphdef, params, mesh=mesh, each=each, keep_all=remat == "none"
        )
        return [run(x, *rest) for x, rest in zip(inputs, others, strict=True)]

    def body(inputs, layer):
        params, own = layer
        run = nnx.merge(graphdef, params)
        inputs = [by_example(x, mesh) for x in inputs]
        outputs = [run(x, *rest, *own) for x, rest in zip(inputs, others, strict=True)]
        return [by_example(x, mesh) for x in outputs], None

    return jax.lax.scan(REMAT[remat](body), inputs, (params, each))[0]


def over_depth(
    layers: nnx.Module,
    x: jax.Array,
    *rest: Any,
    look: Callable[[jax.Array], Any],
    mesh: Mesh | None,
) -> Any:
    """Evaluates a function of the input of stacked layers and of each layer's output.

    Args:
        layers: As in `scan`.
        x: As in `scan`.
        *rest: As in `scan`.
        look: Function of a hidden state [B, ...]; it returns a tree of arrays.
        mesh: As in `scan`.

    Returns:
        The tree of `look` with a leading axis [L + 1, ...]: of the input, then of each output.
    """
    graphdef, params = nnx.split(layers)
    first = look(x)

    def body(x, params):
        x = by_example(nnx.merge(graphdef, params)(by_example(x, mesh), *rest), mesh)
        return x, look(x)

    _, later = jax.lax.scan(body, by_example(x, mesh), params)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)


def compiled(method: Callable) -> Callable:
    """Jits a pure method of a module; all equal modules share the compiled function.

    Keyword arguments are static. Outside `jit`, a scan would be compiled anew at every call.
    """

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def call(graphdef, options, params, args):
        return method(nnx.merge(graphdef, params), *args, **dict(options))

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        graphdef, params = nnx.split(self)
        return call(graphdef, tuple(sorted(kwargs.items())), params, args)

    return wrapper
