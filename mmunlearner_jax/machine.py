"""The machine: what a page or a record calls it, and how XLA compiles for its processor."""

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


def compile_quickly() -> None:
    """Tells XLA to unroll no loops on a CPU.

    Nothing is changed where `XLA_FLAGS` has extra options of its own, or names a file of flags.

    The programs of small models take a fifth less time to compile and run as fast. This must be
    called before JAX starts its devices. Other devices do not heed the option.
    """
    before = os.environ.get("XLA_FLAGS", "").strip()
    names_file = before and not before.startswith("-")
    if "xla_backend_extra_options" not in before and not names_file:
        option = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
        os.environ["XLA_FLAGS"] = f"{before} {option}".strip()
