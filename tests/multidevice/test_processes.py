"""Real processes over loopback: together they give what one gives, and none outlives another."""

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.multidevice.test_equal import assert_close, work

ROOT = Path(__file__).parents[2]

WORK = """
import pickle, sys
from mmunlearner_jax import processes
processes.start()
from tests.multidevice.test_equal import work
found = work((2, 1, 1))
if processes.is_first():
    pickle.dump(found, open(sys.argv[1], "wb"))
processes.wait("end")
"""

LOST = """
import os, time
import jax
from jax.errors import JaxRuntimeError
from mmunlearner_jax import processes
processes.start()
processes.wait("begin")
if jax.process_index() == 1:
    os._exit(9)
try:
    processes.wait("the one that is gone")
except JaxRuntimeError:
    processes.leave("a process is gone")
"""


def launch(program: str, count: int, *arguments: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=environment | {"JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


@pytest.mark.slow
def test_processes_give_the_result_of_one(tmp_path):
    count = 2
    processes = launch(WORK, count, str(tmp_path / "found"))
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    with (tmp_path / "found").open("rb") as file:
        assert_close(pickle.load(file), work((2, 1, 1)))


@pytest.mark.slow
def test_where_one_is_lost_all_end(tmp_path):
    begin = time.monotonic()
    first, second = launch(LOST, 2)
    said = first.communicate(timeout=300)[1]
    assert second.wait(timeout=10) == 9
    assert first.returncode != 0
    assert time.monotonic() - begin < 200, said


def test_a_process_alone_does_not_wait_for_others():
    program = (
        "from mmunlearner_jax import processes as p; p.start(); p.wait('x'); print(p.is_first())"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_"))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_what_is_missing_is_said_in_one_line():
    program = "from mmunlearner_jax import processes as p; p.start('on')"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_"))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "InputError: --distributed=on: " in done.stderr
    assert "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID" in done.stderr
