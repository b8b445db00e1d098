"""The record that defines an anchor: what retain steps keep as it was, besides the answers."""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from mmunlearner_jax.unlearn.scoring import Batch, Params

# Returns a distance, a float32 scalar without a unit, given two models, each as a graph definition
# and all parameters, and a batch with pictures. The first model is the one that moves.
Distance = Callable[[tuple[nnx.GraphDef, Params], tuple[nnx.GraphDef, Params], Batch], jax.Array]


@dataclasses.dataclass(frozen=True)
class Anchor:
    """One anchor. Its module's name is its name in `config.unlearn.anchor`.

    Attributes:
        label: What is held, in tables.
        distance: The distance of the model from the vanilla model on a retain step's pictures.
        holds: Module groups that it holds; where none of them moves, it has no effect.
    """

    label: str
    distance: Distance
    holds: tuple[str, ...]
