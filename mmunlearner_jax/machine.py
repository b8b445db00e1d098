"""The machine that a page or a record names."""

import os
import platform

import jax


def device() -> str:
    """Returns the devices of all processes, e.g. "2 CPU cores (x86_64)" or "8 NVIDIA H200"."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{len(devices)} {devices[0].device_kind}"


def machine() -> str:
    """Returns devices and versions, e.g. "2 CPU cores (x86_64), Python 3.11.7, jax 0.10.2"."""
    return f"{device()}, Python {platform.python_version()}, jax {jax.__version__}"
