"""Masked ascent and descent: optax transforms that move only the weights the mask chooses."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from mmunlearner_jax.unlearn.bits import DEVICES, unpack

MaskOn = Literal["update", "gradient"]


def masked_descent(
    inner: optax.GradientTransformation, *, mask_on: MaskOn = "update", alpha: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Restricts a descent optimizer to the weights that an element-wise mask chooses.

    It takes the same arguments as `masked_ascent`, but the gradient is that of a loss to be
    *lowered*.

    Raises:
        ValueError: `mask_on` is neither `"update"` nor `"gradient"`.
    """
    if mask_on not in ("update", "gradient"):
        raise ValueError(f"mask_on must be 'update' or 'gradient', not {mask_on!r}")
    inner = optax.with_extra_args_support(inner)

    def keep(mask: jax.Array, value: jax.Array) -> jax.Array:
        # Adding -0.0 leaves every weight bit-identical; adding +0.0 would turn -0.0 into +0.0.
        return jnp.where(mask, value, jnp.full_like(value, -0.0))

    def update(updates: Any, state: Any, params: Any = None, *, mask: Any, **extra: Any):
        whole = unpack(mask, updates, DEVICES)
        updates = jax.tree.map(keep, whole, updates)
        updates, state = inner.update(updates, state, params, mask=whole, **extra)
        updates = jax.tree.map(lambda u: alpha * u, updates)
        if mask_on == "update":
            updates = jax.tree.map(keep, whole, updates)
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def masked_ascent(
    inner: optax.GradientTransformation, *, mask_on: MaskOn = "update", alpha: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Turns a descent optimizer into ascent on the weights that an element-wise mask chooses.

    `optax.masked` chooses whole arrays and needs a mask that is constant. Here the mask is data: a
    tree of bool arrays with the structure, shapes and shardings of the parameters, or of their bits
    along `bits.DEVICES`, which `update` takes as an argument.

    The state is that of `inner`. Forget and retain steps can therefore share one state, as
    published, or have one each.

    Args:
        inner: The descent optimizer, for instance `optax.adam(1e-4)`. Where it takes extra
            arguments, it gets the mask, too, as bool.
        mask_on: `"update"` masks the gradient and the finished update, so protected weights stay
            bit-identical whatever the momentum or weight decay of `inner`. `"gradient"` masks the
            gradient alone, as the published code does; the momentum of earlier steps then still
            moves protected weights (D-03).
        alpha: Factor of the finished update. The published code multiplies the loss by it, which
            has no effect with Adam (D-04).

    Returns:
        A transform whose `update(grads, state, params, mask=mask)` takes the gradient of the loss
        to be *raised*.

    Raises:
        ValueError: `mask_on` is neither `"update"` nor `"gradient"`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> tx = masked_ascent(optax.sgd(0.5))
        >>> w, mask = jnp.array([1.0, 1.0]), jnp.array([True, False])
        >>> updates, _ = tx.update(2 * w, tx.init(w), w, mask=mask)
        >>> optax.apply_updates(w, updates)
        Array([2., 1.], dtype=float32)
    """
    descent = masked_descent(inner, mask_on=mask_on, alpha=alpha)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any):
        return descent.update(jax.tree.map(jnp.negative, updates), state, params, **extra)

    return optax.GradientTransformationExtraArgs(descent.init, update)
