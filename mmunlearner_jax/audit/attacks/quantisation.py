"""Quantised weights: small changes of unlearning may vanish in coarser numbers.

Sources: Zhang et al. 2024, "Catastrophic failure of LLM unlearning via quantization"
(arXiv 2410.16454); NF4 and double quantisation: Dettmers et al. 2023 (arXiv 2305.14314), section 3.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.audit.attack import Attack, Target

_BLOCK, _SCALE_BLOCK = 64, 256  # weights that share a scale; scales that share one of their own


def int8(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [..., I, O] rounded to 8 bits, with one scale for each output."""
    import qwix  # takes a second

    channels = [axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2]
    return qwix.dequantize(qwix.quantize(kernel, jnp.int8, channelwise_axes=channels))


def nf4(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [..., I, O] rounded to NF4 with double quantisation.

    Blocks of 64 weights along the inputs share a scale; a smaller block is taken where 64 does not
    divide the inputs. Blocks of 256 scales, less their mean, are rounded to 8 bits. Their steps are
    even, where those of bitsandbytes are finer near zero.
    """
    import qwix

    inputs = kernel.ndim - 2
    tiles = dict.fromkeys(range(kernel.ndim), 1) | {inputs: math.gcd(_BLOCK, kernel.shape[inputs])}
    coarse = qwix.quantize(kernel, "nf4", tiled_axes=tiles)
    scales = coarse.scale.ravel()
    mean = jnp.mean(scales)
    padded = jnp.pad(scales - mean, (0, -scales.size % _SCALE_BLOCK)).reshape(-1, _SCALE_BLOCK)
    rounded = qwix.dequantize(qwix.quantize(padded, jnp.int8, channelwise_axes=[0]))
    scales = rounded.ravel()[: scales.size] + mean
    return qwix.dequantize(coarse.replace(scale=scales.reshape(coarse.scale.shape)))


def quantised(params: Any, rounding: Callable[[jax.Array], jax.Array]) -> Any:
    """Returns parameters whose kernels are rounded; embeddings, biases and norms stay.

    Args:
        params: Parameters of the model.
        rounding: Rounds a kernel.
    """
    rounded = jax.jit(rounding)

    def one(path: tuple, x: jax.Array) -> jax.Array:
        kernel = any(getattr(part, "key", None) == "kernel" for part in path)
        return rounded(x).astype(x.dtype) if kernel and x.ndim >= 2 else x

    return jax.tree_util.tree_map_with_path(one, params)


def _attacked(target: Target, params: Any, label: str, _: None) -> Iterator[tuple[str, np.ndarray]]:
    for name, rounding in (("8 bits", int8), ("4 bits", nf4)):
        answers = functools.partial(target.answers, questions=target.questions)
        yield name, answers(quantised(params, rounding), label=f"{label}, {name}")


ATTACK = Attack(
    "Quantised weights",
    "The weights are rounded to 8 bits, and to 4 bits (NF4 with double quantisation).",
    _attacked,
)
