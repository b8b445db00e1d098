"""Sets of questions about general ability. Every module of this package defines one, as `SET`.

docs/general.md lists them and shows how to add one.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

from mmunlearner_jax.data.ability import AbilitySet
from mmunlearner_jax.data.benchmarks.base import Kind, ScoredKind

ABILITIES: Mapping[str, AbilitySet] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").SET
    for module in pkgutil.iter_modules(__path__)
}


def ability_kinds(names: Iterable[str]) -> dict[Kind, ScoredKind]:
    """Returns the kinds of scored questions of some sets; their scores should stay."""
    sets = (ABILITIES[name] for name in names)
    return {
        (it.split, modality): ScoredKind(f"General ability, {it.title}{besides}")
        for it in sets
        for modality, besides in (("vqa", ""), ("qa", ", in words"))
    }
