"""The record that defines an anchor: what retain steps keep as it was, besides the answers."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
from flax import nnx

from mmunlearner_jax.unlearn.losses import Reference
from mmunlearner_jax.unlearn.scoring import Batch, Params

# Returns a distance, a float32 scalar, given two models, each as a graph definition and all
# parameters, and a batch. The first model is the one that moves, the second the vanilla model.
Distance = Callable[[tuple[nnx.GraphDef, Params], tuple[nnx.GraphDef, Params], Batch], jax.Array]


@dataclasses.dataclass(frozen=True)
class Anchor:
    """One anchor. Its module's name is its name in `config.unlearn.anchor`.

    Attributes:
        label: What is held, in tables.
        distance: The distance of the model from the vanilla model.
        holds: Module groups that it holds; where none of them moves, it has no effect.
        samples: What it compares the models on, besides what retain steps learn: the vanilla
            model's own answers to questions in words about the people to forget, or to questions
            about their pictures that tell nothing of who they are (`stages.own_answers`). "": the
            pictures of the retain step.
        reference: Scores of the vanilla model that its samples need; None: none.
    """

    label: str
    distance: Distance
    holds: tuple[str, ...]
    samples: Literal["", "words", "pictures"] = ""
    reference: Reference | None = None
