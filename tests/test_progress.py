"""What a run says and records of its progress."""

import json
import os
import sys

import pytest

from mmunlearner_jax import progress
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.progress import Progress, duration, read_progress, recorded


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress._Run, "line", 0.0)
    return now


def steps(clock, count, seconds, label="unlearn"):
    with Progress(label, count, unit="step") as made:
        for step in range(count):
            clock[0] += seconds
            made.update(loss=step / 4)


def test_without_a_terminal_there_is_a_line_every_30_seconds(clock, capfd):
    steps(clock, 100, 1.0)
    steps(clock, 20, 0.5, "evaluate")
    said = capfd.readouterr().err
    assert "\r" not in said
    first, *middle, last = said.splitlines()
    assert first == "unlearn: 1 of 100 steps, loss 0"
    assert middle[0] == "unlearn: 31 of 100 steps, 1 a second, 69 s left, loss 7.5"
    assert len(middle) == 2 and last.startswith("unlearn: 91 of 100 steps")  # 30 s are not over


def test_on_a_terminal_there_is_a_bar(clock, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    steps(clock, 3, 1.0)
    progress.say("a line")
    said = capfd.readouterr().err
    assert "3/3" in said and "loss=0.5" in said and "a line\n" in said and "a second" not in said


def test_a_quiet_run_says_nothing(clock, capfd, monkeypatch):
    monkeypatch.setattr(progress._Run, "quiet", True)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        steps(clock, 100, 1.0)
        progress.say("a line")
    assert capfd.readouterr() == ("", "")


def test_a_run_records_what_it_does_and_how_long_a_step_takes(clock, tmp_path):
    path = tmp_path / "progress/0.json"
    with recorded(tmp_path):
        assert not path.exists()  # a command that is refused leaves nothing
        progress.enter("unlearn")
        steps(clock, 5, 2.0)
        running = read_progress(path)
    assert running["state"] == "running" and running["stage"] == "unlearn"
    assert (running["pid"], running["processes"]) == (os.getpid(), 1)
    work = {"label": "unlearn", "unit": "step", "done": 5, "total": 5, "rate": 0.5}
    assert running["work"] == work
    known = {"seconds": 2.0, "unit": "step", "machine": running["machine"]}
    assert running["measured"] == {"unlearn": known}
    assert read_progress(path)["state"] == "done"
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path):
        steps(clock, 2, 1.0, "other")
        raise KeyboardInterrupt
    stopped = read_progress(path)
    assert stopped["state"] == "stopped" and {*stopped["measured"]} == {"unlearn", "other"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": 1}, "not all strings"),
        ({"updated": "now"}, "not all numbers"),
        ({"work": {"label": "a"}}, "unit"),
        ({"measured": {"unlearn": {}}}, "machine"),
        ({"measured": []}, "values"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, change, said):
    good = {"state": "done", "pid": 1, "host": "h", "processes": 1, "machine": "m", "stage": ""}
    good |= {"updated": 1.0, "work": {}, "measured": {}}
    path = tmp_path / "0.json"
    path.write_text(json.dumps(good))
    assert read_progress(path) == good
    path.write_text(json.dumps(good | change))
    with pytest.raises(InputError, match=f"0.json: .*{said}.*; remove it"):
        read_progress(path)


def test_times_in_words():
    assert [*map(duration, (3, 89, 91, 7000))] == ["3 s", "89 s", "2 min", "1 h 57 min"]
