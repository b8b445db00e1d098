"""Low-rank adapters (LoRA): what is added to the kernel of a linear layer, maybe through a mask.

Axes: R rank; a kernel is [in, out], stacked ones [layers, in, out]. The factors lie as PEFT has
them, so that the rank, which is small, is not the last axis of the larger of the two.
Source: Hu et al. 2021.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class LoRA(nnx.Module):
    """The update scale * B A of one kernel, or where there is a mask, mask * (scale * B A).

    Attributes:
        lora_a: float32 [..., R, in].
        lora_b: float32 [..., out, R].
        mask: bool like the kernel, True where it may change; None: everywhere.
        scale: alpha / R.
    """

    def __init__(self, lora_a: nnx.LoRAParam, lora_b: nnx.LoRAParam, mask: Any, scale: float):
        self.lora_a, self.lora_b, self.mask, self.scale = lora_a, lora_b, mask, scale

    def merged(self, kernel: jax.Array) -> jax.Array:
        """The kernel with its update, in its dtype; bit by bit the same where the mask is False."""
        return _merged(kernel, *self._factors(), self._mask(), self.scale)

    def product(
        self, x: jax.Array, kernel: jax.Array, shape: tuple[int, ...], to: Any
    ) -> jax.Array:
        """Of x [..., in] and the updated kernel, its output axis split: [..., *shape].

        Without a mask the update is never multiplied out. With one it is, a layer at a time, and
        the backward pass makes it again rather than keep those of all layers.

        Args:
            x: of the dtype of the computation.
            kernel: [in, out].
            shape: what the output axis is split into.
            to: dtype of the product; None: that of x.
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
    # Chosen and not multiplied: adding 0 would turn -0 into 0.
    return updated if mask is None else jnp.where(mask, updated, kernel)


def _dot(x: jax.Array, kernel: jax.Array, shape: tuple[int, ...], to: Any) -> jax.Array:
    """Of x [..., in] and a kernel [in, out], its output axis split: [..., *shape]."""
    kernel = kernel.astype(x.dtype).reshape(-1, *shape)
    return jnp.tensordot(x, kernel, 1, preferred_element_type=to)


def _call(call: Callable[..., jax.Array], moving: tuple, still: tuple) -> jax.Array:
    return call(*moving, *still)


# Keeps nothing from inside the call for the backward pass; what is `still` has no gradient.
_made_again = jax.custom_vjp(_call, nondiff_argnums=(0,))


def _forward(call, moving, still):
    return call(*moving, *still), (moving, still)


def _backward(call, residuals, cotangent):
    moving, still = residuals
    return jax.vjp(lambda *moving: call(*moving, *still), *moving)[1](cotangent), None


_made_again.defvjp(_forward, _backward)
