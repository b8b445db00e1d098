"""Masked ascent and descent: optax transforms that move only the weights of the saliency mask."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

MaskOn = Literal["update", "gradient"]


def masked_descent(
    inner: optax.GradientTransformation, *, mask_on: MaskOn = "update", alpha: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Keeps a descent optimizer to the weights of an element-wise mask.

    As `masked_ascent`, whose arguments it takes, but the gradient is of a loss to be lowered.
    """
    if mask_on not in ("update", "gradient"):
        raise ValueError(f"mask_on must be 'update' or 'gradient', not {mask_on!r}")
    inner = optax.with_extra_args_support(inner)

    def keep(mask: jax.Array, value: jax.Array) -> jax.Array:
        # -0.0 added to a weight leaves even the sign of a zero.
        return jnp.where(mask, value, jnp.full_like(value, -0.0))

    def update(updates: Any, state: Any, params: Any = None, *, mask: Any, **extra: Any):
        updates = jax.tree.map(keep, mask, updates)
        updates, state = inner.update(updates, state, params, **extra)
        updates = jax.tree.map(lambda u: alpha * u, updates)
        if mask_on == "update":
            updates = jax.tree.map(keep, mask, updates)
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def masked_ascent(
    inner: optax.GradientTransformation, *, mask_on: MaskOn = "update", alpha: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Turns a descent optimizer into ascent on the weights of an element-wise mask.

    `optax.masked` works per leaf and needs a static mask; here the mask is data, a tree of boolean
    arrays like the parameters, passed to `update` and sharded as they are.

    The state is `inner`'s own, so that forget and retain steps may share it, as published, or
    keep one each.

    Args:
        inner: What descends, for instance `optax.adam(1e-4)`.
        mask_on: `"update"` masks the gradient and the finished update, so protected weights stay
            bit-identical whatever momentum or decay `inner` carries (D-03). `"gradient"` masks the
            gradient alone, as the published code does: momentum of earlier steps still moves them.
        alpha: Scale of the finished update; on the loss it would cancel in Adam (D-04).

    Returns:
        A transform whose `update(grads, state, params, mask=mask)` takes the gradient of the loss
        to be *raised*.

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
