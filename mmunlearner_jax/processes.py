"""Several processes: how they start, and what only one of them does.

Every process runs the same stages. Arrays are global; files that hold no sharded array are written
by the first process, and all wait for each other where one reads what another wrote.
"""

import os
import sys
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmunlearner_jax.errors import InputError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start(mode: str = "auto") -> None:
    """Joins the other processes; to be called before anything else of JAX.

    Args:
        mode: `"on"`: join those that the environment tells of (the variables
            `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`, `JAX_PROCESS_ID`, or the scheduler of a
            TPU pod, Slurm or Open MPI). `"auto"`: the same where such variables are set.
            `"off"`: never.

    Raises:
        InputError: There are none to join, or not all came.
    """
    if mode == "off" or (mode == "auto" and not _told()):
        return
    address, count, index = (os.environ.get(name) for name in _VARIABLES)
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=int(count) if count else None,
            process_id=int(index) if index else None,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--distributed={mode}: {str(error).splitlines()[0]}; set {', '.join(_VARIABLES)},"
            " start through a scheduler (launch/), or give --distributed=off"
        ) from error


def _told() -> bool:
    environment = os.environ
    sizes = (environment.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return (
        _VARIABLES[0] in environment
        or any(size.isdigit() and int(size) > 1 for size in sizes)
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    )


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def leave(message: str, *, status: int = 1) -> NoReturn:
    """Ends this process with one line.

    With several processes it does not leave in order: that would wait for the others, which may be
    gone, or wait themselves for a collective. The runtime ends them when one is missing.
    """
    print(f"error: {message}" if status == 1 else message, file=sys.stderr, flush=True)
    if jax.process_count() > 1:
        os._exit(status)
    sys.exit(status)


def wait(point: str) -> None:
    """Waits until all processes are here; `point` is in the message where one never comes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)


def to_host(tree: Any) -> Any:
    """A tree of whole NumPy arrays; collective where an array is spread over processes."""

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)
