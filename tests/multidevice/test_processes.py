"""Real processes over loopback: together they give what one gives, and none outlives another."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmunlearner_jax import preemption
from mmunlearner_jax.weights import io
from tests.helpers.flags import COMPILED_FAST
from tests.helpers.launchers import free_port
from tests.helpers.meshes import assert_close, export, features, short_answers, work

ROOT = Path(__file__).parents[2]

WORK = """
import pathlib, pickle, sys
from mmunlearner_jax import processes
from mmunlearner_jax.command_line import hide_torch
hide_torch()  # as all programs do; transformers would load it for seconds
processes.start()
from tests.helpers.meshes import export, features, short_answers, work
folder = pathlib.Path(sys.argv[1])
count = int(sys.argv[2])
found = work((count, 1, 1))
if processes.is_first():
    (folder / "found").write_bytes(pickle.dumps(found))
export(folder / "by many", count)
seen = features(folder / "features", count)
answers = short_answers(count)
own = pickle.dumps((seen, answers))
(folder / f"seen by {processes.jax.process_index()}").write_bytes(own)
"""

# As `processes.start`, but sooner sure that a process is gone: after 10 seconds and not 100.
LOST = """
import functools, os
import jax
from jax.errors import JaxRuntimeError
from mmunlearner_jax import processes
jax.distributed.initialize = functools.partial(
    jax.distributed.initialize, heartbeat_timeout_seconds=10
)
processes.start()
processes.wait("begin")
if jax.process_index() == 1:
    os._exit(9)
try:
    processes.wait("the one that is gone")
except JaxRuntimeError:
    processes.leave("a process is gone")
"""


# Three loops of steps, as stages have them, whose steps begin anew; processes differ in speed.
STOPPED = """
import pathlib, sys, time
import jax, numpy as np
from mmunlearner_jax import preemption, processes
from mmunlearner_jax.checkpoint import Checkpoints
from mmunlearner_jax.sharding import batch_sharding, make_mesh
processes.start()
preemption.watch()
folder, index = pathlib.Path(sys.argv[1]), jax.process_index()
state = jax.device_put(np.arange(8.0), batch_sharding(make_mesh((-1, 1, 1))))
try:
    for loop in range(3):
        with Checkpoints(folder / str(loop), every=5) as saved:
            for step in range(1, 31):
                (folder / f"{index} at {loop}, {step}").touch()
                time.sleep(0.02 + 0.02 * index)
                saved.save(step, state, {})
        preemption.heed()
except preemption.Preempted:
    (folder / f"{index} stopped").write_text(f"{loop} {step}")
    sys.exit(preemption.STATUS)
"""


def launch(program: str, count: int, *arguments: str) -> list[subprocess.Popen]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": COMPILED_FAST,
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
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
def test_processes_give_the_result_of_one(tmp_path, monkeypatch):
    count = 2
    processes = launch(WORK, count, str(tmp_path), str(count))
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    found = pickle.loads((tmp_path / "found").read_bytes())
    assert_close(found, work((count, 1, 1)))
    monkeypatch.setattr(io, "SHARD_BYTES", io.SHARD_BYTES)
    export(tmp_path / "by one", count)
    names = sorted(path.name for path in (tmp_path / "by one").iterdir())
    assert len(names) > 3 and names == sorted(p.name for p in (tmp_path / "by many").iterdir())
    for name in names:
        ours, theirs = (tmp_path / by / name for by in ("by one", "by many"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    alone, answered = features(tmp_path / "alone", count), short_answers(count)
    for index in range(count):
        seen, answers = pickle.loads((tmp_path / f"seen by {index}").read_bytes())
        assert answers == answered and len({line["response"] for line in answers}) > 1
        for many, one in zip(seen, alone, strict=True):
            np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "step"), [(0, 7), (1, 3), (1, 30), (2, 5)])
def test_where_one_is_asked_to_end_all_save_the_same_step(tmp_path, loop, step):
    processes = launch(STOPPED, 2, str(tmp_path))
    deadline = time.monotonic() + 120
    while not (tmp_path / f"1 at {loop}, {step}").exists():
        assert time.monotonic() < deadline and processes[1].poll() is None
        time.sleep(0.01)
    processes[1].terminate()
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [preemption.STATUS] * 2, said
    one, other = ((tmp_path / f"{n} stopped").read_text() for n in range(2))
    assert one == other
    last_loop, last_step = map(int, one.split())
    assert (last_loop, last_step) >= (loop, step)
    saved = [int(path.name) for path in (tmp_path / str(last_loop)).glob("[0-9]*")]
    assert max(saved) == last_step


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
