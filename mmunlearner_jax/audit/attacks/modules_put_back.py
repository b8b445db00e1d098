"""Modules of the model before unlearning are put back: where does the forgetting sit?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.models.registry import ARCHITECTURES

_NAMES = {"vision": "vision tower", "language": "language model"}


def _attacked(target: Target, params: Any, _: None) -> Iterator[tuple[str, np.ndarray]]:
    session = target.session
    table = ARCHITECTURES[session.model.config.model_type].table
    for group in dict.fromkeys(group for _, group in table.groups):
        old = session.split_frozen(target.before, (group,))[0]
        mixed = nnx.merge_state(old, session.split_frozen(params, (group,))[1])
        yield _NAMES.get(group, group), target.answers(mixed, target.questions, group)


ATTACK = Attack(
    "Modules put back",
    "The vision tower, the projector or the language model from before unlearning replaces the"
    " unlearned one. This shows where the forgetting sits; an outsider lacks these weights.",
    _attacked,
    lambda _: Cost(3),
    against_gold=False,
)
