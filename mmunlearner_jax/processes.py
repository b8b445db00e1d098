"""Several processes: how they start, and what only one of them does.

Every process runs the same stages. Arrays are global. The first process writes the files that hold
no sharded array. All processes wait for each other before one reads what another wrote.
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
    """Joins the other processes; call it before any other function of JAX.

    Args:
        mode: `"on"`: join the processes that the environment describes (the variables
            `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`, `JAX_PROCESS_ID`, or the scheduler of a
            TPU pod, Slurm or Open MPI). `"auto"`: join them if such variables are set. `"off"`:
            never join.

    Raises:
        InputError: There are no processes to join, or some did not come.
    """
    if mode == "off" or (mode == "auto" and not _is_distributed()):
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


def _is_distributed() -> bool:
    """Returns whether the environment describes several processes."""
    environment = os.environ
    sizes = (environment.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return (
        _VARIABLES[0] in environment
        or any(size.isdigit() and int(size) > 1 for size in sizes)
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    )


def is_first() -> bool:
    """Returns whether this is the first process, which writes what is written once."""
    return jax.process_index() == 0


def leave(message: str, *, status: int = 1) -> NoReturn:
    """Prints one line and ends this process.

    With several processes it ends at once. An orderly end would wait for the others, which may be
    gone or may wait for a collective. The runtime ends them when one is missing.

    Args:
        message: The line; status 1 puts "error: " before it.
        status: Exit status.
    """
    print(f"error: {message}" if status == 1 else message, file=sys.stderr, flush=True)
    if jax.process_count() > 1:
        os._exit(status)
    sys.exit(status)


def wait(point: str) -> None:
    """Waits until all processes are here; the error about a missing process names `point`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)


def to_host(tree: Any) -> Any:
    """Returns a tree of whole NumPy arrays; collective if an array is spread over processes."""

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)
