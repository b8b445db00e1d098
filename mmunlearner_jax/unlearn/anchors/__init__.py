"""The anchors of retain steps. Every module of this package defines one, as `ANCHOR`."""

import importlib
import pkgutil
from collections.abc import Mapping

from mmunlearner_jax.unlearn.anchor import Anchor

# By name.
ANCHORS: Mapping[str, Anchor] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").ANCHOR
    for module in pkgutil.iter_modules(__path__)
}
