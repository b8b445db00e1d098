"""The unlearning methods. Every module of this package defines one, as `METHOD`.

docs/add-a-method.md shows how to add a method.
"""

import importlib
import pkgutil
from collections.abc import Mapping

from mmunlearner_jax.unlearn.method import Method

_REGISTERED = [
    importlib.import_module(f"{__name__}.{module.name}").METHOD
    for module in pkgutil.iter_modules(__path__)
]

# By name; methods with a mask first.
METHODS: Mapping[str, Method] = {
    method.name: method for method in sorted(_REGISTERED, key=lambda method: not method.masked)
}
