"""The attacks. Every module of this package defines one, as `ATTACK`.

docs/audit.md lists them and shows how to add one.
"""

import importlib
import pkgutil
from collections.abc import Mapping

from mmunlearner_jax.audit.attack import Attack

ATTACKS: Mapping[str, Attack] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").ATTACK
    for module in pkgutil.iter_modules(__path__)
}
