"""RMU: what the decoder is given of the pictures to forget is pulled to one random direction.

The published loss acts on a hidden layer of a language model. Here it acts on the output of the
projector, so that no text is touched, and the anchor `picture_features` keeps retained pictures.

Axes: B rows, T tokens, D text features.
Source: Li et al. 2024, "The WMDP benchmark" (arXiv 2403.03218), section 4.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.losses import Term
from mmunlearner_jax.unlearn.method import Loss, Method
from mmunlearner_jax.unlearn.scoring import ImageTokens, image_tokens

_SEED = 0  # of the direction, which is the same in every run


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMUConfig(Section):
    """Options of `rmu`."""

    key: ClassVar[str] = "unlearn.rmu"

    coefficient: float = option(
        10.0, "Length of the vector that image tokens are pulled to.", above=0
    )


def rmu(tokens: ImageTokens, *, coefficient: float) -> tuple[Term, ...]:
    """Returns the mean over image tokens of |h - coefficient u|^2 / D, as one term.

    Args:
        tokens: What the decoder is given of pictures, h.
        coefficient: Length of the target; u is a random vector of length 1, positive everywhere.
    """
    features, seen = tokens
    drawn = jax.random.uniform(jax.random.key(_SEED), features.shape[-1:])
    target = coefficient * drawn / jnp.linalg.norm(drawn)
    away = jnp.mean((features - target) ** 2, axis=-1, keepdims=True)
    return (Term(jnp.sum(away, axis=(1, 2), where=seen), jnp.sum(seen, axis=(1, 2))),)


METHOD = Method(
    "rmu",
    "RMU at the projector",
    "#bcbd22",
    "h",
    forget=Loss(rmu, RMUConfig, of=image_tokens),
    ascends=False,
    moves=("vision", "projector"),
    anchor="picture_features",
)
