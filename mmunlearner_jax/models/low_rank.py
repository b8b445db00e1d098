"""Low-rank adapters (LoRA): an update of a linear layer's kernel, which a mask may restrict.

Axes: R rank. A kernel is [in, out], or [layers, in, out] where stacked. The factors have PEFT's
orientation, so that the small rank is not the last axis of the larger factor.
Source: Hu et al. 2021.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class LoRA(nnx.Module):
    """The update scale * B A of one kernel, or mask * (scale * B A) with a mask.

    Attributes:
        lora_a: The factor A, float32 [..., R, in].
        lora_b: The factor B, float32 [..., out, R].
        mask: Whether an element of the kernel may change, bool with the kernel's shape; None: all
            may.
        scale: LoRA's alpha / R.
    """

    def __init__(self, lora_a: nnx.LoRAParam, lora_b: nnx.LoRAParam, mask: Any, scale: float):
        self.lora_a, self.lora_b, self.mask, self.scale = lora_a, lora_b, mask, scale

    def merged(self, kernel: jax.Array) -> jax.Array:
        """Returns the updated kernel in its dtype; where the mask is False, no bit changes."""
        return _merged(kernel, *self._factors(), self._mask(), self.scale)

    def product(
        self, x: jax.Array, kernel: jax.Array, shape: tuple[int, ...], to: Any
    ) -> jax.Array:
        """Returns x times the updated kernel, as [..., *shape].

        Without a mask, the product B A is never computed. With a mask it is computed for one layer
        at a time, and again in the backward pass, which keeps none of them.

        Args:
            x: Input [..., in], in the dtype of the computation.
            kernel: The kernel without its update [in, out].
            shape: Axes that the output axis is split into.
            to: Dtype of the result; None: that of x.
        """
        dot = functools.partial(_dot, shape=shape, to=to)
        if self.mask is None:
            a, b = (factor.astype(x.dtype) for factor in self._factors())
            low = x @ a.T
            return dot(x, kernel) + self.scale * dot(low, b.T)

        def masked(x, a, b, kernel, mask):
            return dot(x, _merged(kernel, a, b, mask, self.scale))

        return _made_again(masked, (x, *self._factors()), (kernel, self._mask()))

    def _factors(self) -> tuple[jax.Array, jax.Array]:
        return self.lora_a.get_value(), self.lora_b.get_value()

    def _mask(self) -> jax.Array | None:
        return None if self.mask is None else self.mask.get_value()


@functools.partial(jax.jit, static_argnums=4)
def _merged(
    kernel: jax.Array, a: jax.Array, b: jax.Array, mask: jax.Array | None, scale: float
) -> jax.Array:
    updated = (kernel + scale * jnp.einsum("...ri,...or->...io", a, b)).astype(kernel.dtype)
    # `where` instead of a product with the mask: adding 0 would turn -0 into 0.
    return updated if mask is None else jnp.where(mask, updated, kernel)


def _dot(x: jax.Array, kernel: jax.Array, shape: tuple[int, ...], to: Any) -> jax.Array:
    """Returns x [..., in] times a kernel [in, out], as [..., *shape]."""
    kernel = kernel.astype(x.dtype).reshape(-1, *shape)
    return jnp.tensordot(x, kernel, 1, preferred_element_type=to)


def _call(call: Callable[..., jax.Array], moving: tuple, still: tuple) -> jax.Array:
    return call(*moving, *still)


# The backward pass runs the call again and keeps no intermediate. `still` gets no gradient.
_made_again = jax.custom_vjp(_call, nondiff_argnums=(0,))


def _forward(call, moving, still):
    return call(*moving, *still), (moving, still)


def _backward(call, residuals, cotangent):
    moving, still = residuals
    return jax.vjp(lambda *moving: call(*moving, *still), *moving)[1](cotangent), None


_made_again.defvjp(_forward, _backward)
