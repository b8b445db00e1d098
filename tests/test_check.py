"""`mmu check`: what a run would do, without a trace in its workdir."""

import io
import json
import shutil

import pytest
from rich.console import Console

from mmunlearner_jax import artefacts, memory
from mmunlearner_jax import check as checking
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.machine import machine
from mmunlearner_jax.results import update_results
from tests.helpers.small_run import STAGES, prepared_run, small_config


@pytest.fixture(scope="module")
def config():
    return small_config()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepared_run(tmp_path_factory.mktemp("check") / "run")


@pytest.fixture
def workdir(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "run")


def checked(config, workdir):
    out = io.StringIO()
    checking.check(config, workdir, (), Console(file=out, width=200))
    text = out.getvalue()
    rows = [[c.strip() for c in x.split("│")[1:-1]] for x in text.splitlines() if x[:1] == "│"]
    return text, {name: row for name, *row in reversed(rows) if name}, rows


def test_a_new_run_is_checked_and_leaves_no_trace(config, tmp_path):
    text, rows, all_rows = checked(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    assert [row[0] for row in all_rows if row[0]] == STAGES.split()
    assert "12 named people" in text and "checkpoint: initial/ of the workdir" in text
    assert machine() in text
    state, todo, held, taken, left = rows["finetune"]
    assert (state, todo, taken, left) == ("to do", "finetune_text: 240 steps", "", "unknown")
    assert float(held) > 0
    assert rows["unlearn"][1] == "unlearn: 180 steps" and rows["controls"][4] == "unknown"
    assert rows["evaluate"][1] == "before/forget: 98 questions"  # the first of two
    assert rows["prepare"][:2] == ["to do", ""]


def test_it_says_what_is_done_where_it_goes_on_and_what_that_takes_here(config, workdir):
    begun = workdir / "checkpoints/finetune_text/60"
    begun.mkdir(parents=True)
    artefacts.seal(begun)
    (workdir / "checkpoints/finetune_text/120").mkdir()  # was being written
    update_results(workdir, "seconds", {"prepare": 7.0})
    known = {"finetune_text": 0.5, "finetune": 2.0, "before/forget": 1.0}
    measured = {x: {"seconds": s, "unit": "step", "machine": machine()} for x, s in known.items()}
    measured["unlearn"] = {"seconds": 1.0, "unit": "step", "machine": "a GPU elsewhere"}
    record = {"state": "stopped", "pid": 1, "host": "h", "processes": 1, "machine": "m"}
    record |= {"stage": "finetune", "updated": 1.0, "work": {}, "measured": measured}
    (workdir / "progress").mkdir()
    (workdir / "progress/0.json").write_text(json.dumps(record))
    before = sorted(workdir.rglob("*"))
    _, rows, _ = checked(config, workdir)
    assert sorted(workdir.rglob("*")) == before
    assert rows["prepare"][0] == "done" and rows["prepare"][3] == "7 s"
    assert rows["finetune"][0] == "goes on after finetune_text, step 60 of 240"
    assert rows["finetune"][1] == "finetune_text: 180 steps"
    assert rows["finetune"][4] == "12 min"  # 180 x 0.5 + 320 x 2 seconds
    assert rows["unlearn"][4] == rows["evaluate"][4] == "unknown"  # elsewhere, and one of five


def test_what_a_run_would_refuse_is_refused(config, workdir, monkeypatch):
    with pytest.raises(InputError, match="config.unlearn.forget_batch"):
        checked(config.with_values({"unlearn.forget_batch": 3, "mesh": (8, 1, 1)}), workdir)
    other = config.with_values({"seed": 7}).to_dict()
    (workdir / "config.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="config.json: seed was 7 and is now 0"):
        checked(config, workdir)
    (workdir / "config.json").unlink()
    weights = workdir / "initial/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(InputError, match="model.safetensors: is damaged"):
        checked(config, workdir)


def test_a_stage_that_a_device_is_too_small_for_is_refused(config, workdir, monkeypatch):
    monkeypatch.setattr(memory, "device_limit", lambda: 10_000)
    with pytest.raises(InputError, match="the stage finetune needs"):
        checked(config, workdir)
