"""Quantised weights: small changes of unlearning may vanish in coarser numbers.

Sources: Zhang et al. 2024, "Catastrophic failure of LLM unlearning via quantization"
(arXiv 2410.16454); NF4 and double quantisation: Dettmers et al. 2023 (arXiv 2305.14314), section 3.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.audit.attack import Attack, Cost, Target

_BLOCK, _SCALE_BLOCK = 64, 256  # weights that share a scale; scales that share one of their own


def int8(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [..., I, O] rounded to 8 bits, with one scale for each output."""
    import qwix  # takes a second

    channels = [axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2]
    return qwix.dequantize(qwix.quantize(kernel, jnp.int8, channelwise_axes=channels))


def nf4(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [..., I, O] rounded to NF4 with double quantisation.

    As in bitsandbytes, blocks of 64 weights share a scale, along the inputs and on to the next
    output. Blocks of 256 scales, less their mean, are rounded to 8 bits, here in even steps, where
    those of bitsandbytes are finer near zero.
    """
    import qwix

    weights = jnp.swapaxes(kernel, -1, -2)  # [..., O, I], as the checkpoint has them
    coarse = qwix.quantize(_blocks(weights, _BLOCK), "nf4", channelwise_axes=[0])
    scales = coarse.scale.ravel()
    mean = jnp.mean(scales)
    fine = qwix.quantize(_blocks(scales - mean, _SCALE_BLOCK), jnp.int8, channelwise_axes=[0])
    scales = qwix.dequantize(fine).ravel()[: scales.size] + mean
    rounded = qwix.dequantize(coarse.replace(scale=scales.reshape(coarse.scale.shape)))
    return jnp.swapaxes(rounded.ravel()[: weights.size].reshape(weights.shape), -1, -2)


def _blocks(x: jax.Array, size: int) -> jax.Array:
    """Returns the elements in rows of some size, the last one filled with zeros."""
    return jnp.pad(x.ravel(), (0, -x.size % size)).reshape(-1, size)


def quantised(params: Any, rounding: Callable[[jax.Array], jax.Array]) -> Any:
    """Returns parameters whose kernels are rounded; embeddings, biases and norms stay.

    Args:
        params: Parameters of the model.
        rounding: Rounds a kernel.
    """

    def one(path: tuple, x: jax.Array) -> jax.Array:
        if x.ndim < 2 or not any(getattr(part, "key", None) == "kernel" for part in path):
            return x
        return jax.jit(rounding, out_shardings=x.sharding)(x).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(one, params)


def _attacked(target: Target, params: Any, _: None) -> Iterator[tuple[str, np.ndarray]]:
    for name, rounding in (("8 bits", int8), ("4 bits", nf4)):
        yield name, target.answers(quantised(params, rounding), target.questions, name)


ATTACK = Attack(
    "Quantised weights",
    "The weights are rounded to 8 bits, and to 4 bits (NF4 with double quantisation).",
    _attacked,
    lambda _: Cost(2),
)
