"""`metrics.jsonl`, TensorBoard and the bar of a stage."""

import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from mmunlearner_jax import metrics as metrics_module
from mmunlearner_jax.metrics import Metrics


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir, stage="unlearn"):
    return [line["step"] for line in lines(workdir) if line["stage"] == stage]


def write(workdir, stage, numbers, **options):
    with Metrics(workdir, stage, total=20, **options) as metrics:
        for step in numbers:
            metrics.write(step, loss=jnp.float32(step / 4))


def test_lines(tmp_path):
    with Metrics(tmp_path, "unlearn", total=2) as metrics:
        metrics.write(1, forget_loss=jnp.float32(0.5), retain_loss=2)
        metrics.write(2, retain_loss=1.5, remembered=0.25)
    first, second = lines(tmp_path)
    assert first.pop("seconds") <= second.pop("seconds")
    assert first == {"stage": "unlearn", "step": 1, "forget_loss": 0.5, "retain_loss": 2.0}
    assert second == {"stage": "unlearn", "step": 2, "retain_loss": 1.5, "remembered": 0.25}


@pytest.fixture
def device(monkeypatch):
    """A device that takes `device.seconds` for a step, and works only while it is waited for."""
    made = SimpleNamespace(seconds=0.0, clock=0.0, fetched=[])
    get = jax.device_get

    def fetch(rows):
        made.clock += made.seconds * len(rows)
        made.fetched.append(len(rows))
        return get(rows)

    monkeypatch.setattr(jax, "device_get", fetch)
    monkeypatch.setattr(metrics_module.time, "monotonic", lambda: made.clock)
    return made


@pytest.mark.parametrize(
    ("seconds", "fetched"),
    [
        (1e-4, [1, 10, 10, 4]),  # fast steps ten at once
        (0.4, [1, *[2] * 12]),
        (3.0, [1] * 25),  # slow ones each, while the device works on the next
    ],
)
def test_values_are_fetched_about_once_a_second(tmp_path, device, seconds, fetched):
    device.seconds = seconds
    with Metrics(tmp_path, "unlearn", total=25, saved=100) as metrics:
        for step in range(1, 26):
            metrics.write(step, loss=jnp.float32(step))
            assert steps(tmp_path) == list(range(1, sum(device.fetched) + 1))
            assert sum(device.fetched) < step  # the latest step is never waited for
    assert device.fetched == fetched
    assert [line["seconds"] for line in lines(tmp_path)] == pytest.approx(
        [seconds * step for step in range(1, 26)], abs=1e-3
    )


def test_several_processes_fetch_at_the_same_steps_whatever_their_clocks_say(
    tmp_path, device, monkeypatch
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    device.seconds = 3.0
    with Metrics(tmp_path, "unlearn", total=25, saved=100) as metrics:
        for step in range(1, 26):
            metrics.write(step, loss=jnp.float32(step))
    assert device.fetched == [10, 10, 5]


def test_before_a_checkpoint_all_values_are_fetched(tmp_path, device):
    with Metrics(tmp_path, "unlearn", total=8, saved=3) as metrics:
        for step in range(1, 9):
            metrics.write(step, loss=jnp.float32(step))
            assert len(steps(tmp_path)) >= step // 3 * 3
    assert steps(tmp_path) == list(range(1, 9))


def test_what_was_computed_before_an_error_is_written(tmp_path):
    with pytest.raises(RuntimeError, match="killed"), Metrics(tmp_path, "a", total=5) as metrics:
        metrics.write(1, loss=1.0)
        raise RuntimeError("killed")
    assert steps(tmp_path, "a") == [1]


def test_resuming_drops_the_lines_beyond_the_start(tmp_path):
    write(tmp_path, "unlearn", range(1, 8))
    write(tmp_path, "unlearn", [5, 6], start=4)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_the_lines_of_other_stages_stay(tmp_path):
    write(tmp_path, "finetune", range(1, 4))
    write(tmp_path, "unlearn", range(1, 6))
    before = [line for line in lines(tmp_path) if line["stage"] == "finetune"]
    write(tmp_path, "unlearn", [1])
    assert steps(tmp_path) == [1]
    assert [line for line in lines(tmp_path) if line["stage"] == "finetune"] == before


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    write(tmp_path, "unlearn", [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "unlea')
    write(tmp_path, "unlearn", [3], start=2)
    assert steps(tmp_path) == [1, 2, 3]


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write(tmp_path, "unlearn", [1, 2])
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_change_is_written_with_the_first_step(tmp_path):
    for start in (0, 2):
        with Metrics(tmp_path, "unlearn", total=4, start=start, once={"pictures/filled": 0.9}) as m:
            m.write(start + 1, loss=1.0)
            m.write(start + 2, loss=1.0)
    assert [line.get("pictures/filled") for line in lines(tmp_path)] == [0.9, None, None, None]


def test_tensorboard_and_bar(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write(tmp_path, "controls/ga", [1, 2])
    (events,) = (tmp_path / "tensorboard/controls/ga").glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()
    bar = capfd.readouterr().err
    assert "controls/ga" in bar
    assert "2/20" in bar
    assert "loss=0.5" in bar
