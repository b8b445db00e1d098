"""The methods, one file each: every module here holds a `METHOD`.

docs/add-a-method.md adds one.
"""

import importlib
import pkgutil
from collections.abc import Mapping

from mmunlearner_jax.unlearn.method import Method

_FOUND = [
    importlib.import_module(f"{__name__}.{module.name}").METHOD
    for module in pkgutil.iter_modules(__path__)
]

# By name; methods with a mask first.
METHODS: Mapping[str, Method] = {
    method.name: method for method in sorted(_FOUND, key=lambda method: not method.masked)
}
