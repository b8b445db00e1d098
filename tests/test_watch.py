"""`mmu watch`: what a run is doing, from its files alone."""

import io
import json
import os
import threading

import pytest
from rich.console import Console

from mmunlearner_jax import watch
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.lock import locked
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.progress import recorded


def written(workdir, number=0, **changes):
    work = {"label": "unlearn", "unit": "step", "done": 40, "total": 180, "rate": 2.0}
    record = {"state": "running", "pid": os.getpid(), "host": "h", "processes": 1, "machine": "m"}
    record |= {"stage": "unlearn", "updated": 1.0, "work": work, "measured": {}, **changes}
    (workdir / "progress").mkdir(parents=True, exist_ok=True)
    (workdir / f"progress/{number}.json").write_text(json.dumps(record))


def lost(workdir, *losses):
    lines = [{"stage": "unlearn", "step": n, "forget_loss": x} for n, x in enumerate(losses)]
    lines.append({"stage": "other", "step": 1, "loss": 7.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(f'{{"cut": 0}}\n{text}{{"stage": "unl')


def said(workdir, *, terminal=False, **options):
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=terminal)
    watch.follow(workdir, console, **options)
    return out.getvalue()


def test_a_run_that_goes_on(tmp_path):
    written(tmp_path)
    lost(tmp_path, 1.0, 2.0, 4.5)
    with locked(tmp_path):
        (line,) = watch.lines(watch.rows(tmp_path))
        assert line == ("unlearn: 40 of 180 steps, 2 a second, 70 s left, running, forget_loss 4.5")
        once = said(tmp_path, once=True)
    assert "40 of 180 steps" in once and "forget_loss ▁▃█ 4.5" in once


def test_each_process_has_a_row_and_one_that_is_gone_was_killed(tmp_path):
    slow = {"label": "unlearn", "unit": "step", "done": 2, "total": 9, "rate": 0.1}
    written(tmp_path)
    written(tmp_path, 1, work=slow)
    written(tmp_path, 2, state="failed", work={})
    assert watch.lines(watch.rows(tmp_path)) == [
        "process 0: unlearn: 40 of 180 steps, 2 a second, killed",
        "process 1: unlearn: 2 of 9 steps, 10 s each, killed",
        "process 2: unlearn: failed",
    ]


def test_a_comparison_shows_its_jobs(tmp_path):
    for name in ("seed-0/vanilla", "seed-1/gold-10"):
        written(tmp_path / name, state="done")
    text = said(tmp_path, once=True)
    assert "seed-0/vanilla" in text and "seed-1/gold-10" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_it_ends_with_the_run(tmp_path, monkeypatch, terminal):
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.01)
    begun, go = threading.Event(), threading.Event()

    def run():
        with locked(tmp_path), recorded(tmp_path), Metrics(tmp_path, "unlearn", total=3) as made:
            made.write(1, forget_loss=1.0)
            made.write(2, forget_loss=2.0)
            begun.set()
            assert go.wait(20)
            made.write(3, forget_loss=4.0)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    monkeypatch.setattr(watch.time, "sleep", lambda _: go.set())
    text = said(tmp_path, terminal=terminal)
    thread.join()
    assert "3 of 3 steps" in text and "done" in text and "4" in text.split("forget_loss")[-1]
    assert terminal or "\r" not in text and "\x1b" not in text


def test_no_colour_and_no_terminal_codes_where_they_are_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    written(tmp_path)
    assert "\x1b[3" not in said(tmp_path, terminal=True, once=True)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="has no progress/.*; give the --workdir of a run"):
        watch.rows(tmp_path)
    written(tmp_path, pid="a")
    with pytest.raises(InputError, match="progress/0.json: .*remove it"):
        watch.rows(tmp_path)


def test_bars_are_means_of_equal_shares():
    assert watch.sparkline([]) == "" and watch.sparkline([3.0, 3.0]) == "▁▁"
    assert watch.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert watch.sparkline([0, 0, 7, 7], points=2) == "▁█"


def test_only_the_end_of_long_metrics_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_TAIL", 130)
    written(tmp_path)
    lost(tmp_path, *(float(n) for n in range(100)))
    (row,) = watch.rows(tmp_path)
    assert row.losses[1] == [99.0]
