"""A profile of some steps of a stage: where it lies, and which steps are in it."""

import gzip
import json
import re

import jax
import jax.numpy as jnp
import pytest

from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.profiling import Trace


def traced(folder):
    (path,) = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert list(path.parent.glob("*.xplane.pb"))  # what TensorBoard reads
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    steps = [int(e["args"]["step_num"]) for e in events if e.get("name") == "step"]
    return steps, {event.get("name") for event in events}


def test_steps_behind_the_first_ones(tmp_path, capfd):
    double = jax.jit(lambda x: 2 * x)
    with Metrics(tmp_path, "unlearn", total=9, profile=2) as metrics:
        for step in range(1, 10):
            metrics.write(step, loss=double(jnp.float32(step)))
    steps, names = traced(tmp_path / "tensorboard/unlearn")
    assert steps == [4, 5] and any("double" in name or "lambda" in name for name in names if name)
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("profile of")]
    found = re.search(r"of 2 steps: tensorboard --logdir=(\S+) .*or (\S+) at", line)
    assert found and found[1] == str(tmp_path / "tensorboard/unlearn")
    assert found[2].startswith(found[1])


@pytest.mark.parametrize("start, total, steps", [(0, 3, [1, 2, 3]), (4, 9, [6, 7, 8, 9])])
def test_a_stage_of_few_steps(tmp_path, start, total, steps):
    with Trace(tmp_path, steps=4, start=start, total=total) as trace:
        for _ in range(start, total):
            trace.step()
    assert traced(tmp_path)[0] == steps


def test_an_error_ends_the_profile(tmp_path):
    for attempt in ("one", "two"):  # a profile that goes on would not let the second one start
        with pytest.raises(RuntimeError), Trace(tmp_path / attempt, steps=9) as trace:
            for _ in range(4):
                trace.step()
            raise RuntimeError
        assert traced(tmp_path / attempt)[0][0] == 4


def test_none_by_default_nor_by_other_processes(tmp_path, monkeypatch):
    with Trace(tmp_path, steps=0) as trace:
        trace.step()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Trace(tmp_path, steps=2, total=2) as trace:
        trace.step()
    assert not list(tmp_path.iterdir())
