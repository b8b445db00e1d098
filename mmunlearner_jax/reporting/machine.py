"""The machine that a page names."""

import os
import platform

import jax


def machine() -> str:
    """Returns devices and versions, e.g. "2 CPU cores (x86_64), Python 3.11.7, jax 0.10.2"."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        place = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    else:
        place = f"{len(devices)} {devices[0].device_kind}"
    return f"{place}, Python {platform.python_version()}, jax {jax.__version__}"
