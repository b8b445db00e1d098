"""The comparison as its users run it, with few steps of everything: jobs, report, resuming."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs import orl
from mmunlearner_jax.comparison.jobs import jobs
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from tests.helpers.commands import FLAGS, FOREIGN, ROOT, SHORT, SMALL, TEXT_FIRST, loaded, signalled

METHODS, CONTROLS = ("mmunlearner",), ("no_mask", "other_people_mask", "batch_fisher", "lora")
REFERENCES = ("vanilla", "gold", "never_taught")
COMPARE = {
    "compare.seeds": "(3,)",
    "compare.development_seeds": "()",  # the cell chooses on what is set apart
    "compare.ratios": "(10,)",
    "compare.methods": METHODS,
    "compare.learning_rates": "(1e-4,3e-4)",
    "compare.extensions": 0,
    "compare.controls": CONTROLS,
    "compare.forget_steps": 2,
    "compare.look_questions": 8,
    "compare.apart": 0.5,  # of two unseen photographs of the one forgotten person, one
    "evaluate.photos_per_person": 2,
    "compare.share_every": 1,
    "compare.relearn_steps": (1, 2),
    "compare.keep_weights": True,
    "compare.plain_text": True,
    "compare.audit": ("gold", "mmunlearner"),
    "audit.attacks": ("relearn_same", "quantisation"),
    "audit.relearn_same.steps": "(1,)",
    "audit.relearn_same.rates": "(1e-3,)",
    "audit.relearn_same.choices": 1,
    "compare.tasks": '("classification","generation")',
    "compare.primary": "mmunlearner,no_mask,test_retain/vqa",
    "compare.secondary": '("mmunlearner,lora,test_retain/vqa",)',
    "evaluate.splits": '("forget","test","test_retain")',
}


def line(workdir: Path, *arguments: str, **overrides) -> list[str]:
    given = {**SHORT, **SMALL["orl"], **TEXT_FIRST, **COMPARE, **overrides}
    return [
        *(sys.executable, "-m", "mmunlearner_jax.compare", "--config=configs/orl.py"),
        *(f"--workdir={workdir}", *arguments),
        *(f"--config.{key}={value}" for key, value in given.items()),
    ]


def compare(workdir: Path, *arguments: str, **overrides) -> subprocess.CompletedProcess:
    given = line(workdir, *arguments, **overrides)
    env = {**os.environ, **FLAGS, "PYTHONPROFILEIMPORTTIME": "1"}
    return subprocess.run(given, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("compare") / "run"
    done = compare(workdir, "--jobs=2", f"--markdown={workdir / 'docs/results.md'}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not FOREIGN & loaded(done)
    return workdir


CELL = "seed-3/forget-10"


def variants(workdir: Path) -> dict:
    return json.loads((workdir / CELL / "results.json").read_text())["variants"]


def losses(folder: Path) -> dict[str, float]:
    """The first retain loss after a forget step, by run."""
    rows = map(json.loads, (folder / "metrics.jsonl").open())
    return {x["stage"]: x["retain_loss"] for x in rows if x["step"] == 1 and "retain_loss" in x}


def test_every_row_is_made_and_reported(finished):
    made = variants(finished)
    assert tuple(made) == (*REFERENCES, *METHODS, *CONTROLS)
    tuning = json.loads((finished / CELL / "results.json").read_text())["tuning"]
    assert [trial["learning_rate"] for trial in tuning["mmunlearner"]] == [1e-4, 3e-4]
    rate = made["mmunlearner"]["learning_rate"]
    for variant in made.values():
        assert [*variant["relearned"]] == ["1", "2"]
        assert all({*x} == {"forget/vqa", "test/vqa"} for x in variant["relearned"].values())
    for name in (*METHODS, *CONTROLS):
        assert made[name]["learning_rate"] == rate
        assert made[name]["control"] == (name in CONTROLS)
        steps = [look["forget_steps"] for look in made[name]["path"]]
        assert steps == [*range(len(steps))] and 2 <= len(steps) <= 3
    for name in ("importance_by_batch", "importance_of_others"):
        assert (finished / CELL / name / "importance").is_dir()
    assert all(variant["plain_perplexity"] > 1 for variant in made.values())
    weights = {
        p.parent.name: p.read_bytes() for p in finished.glob(f"{CELL}/compare/models/*/model.*")
    }
    assert weights.keys() == {*METHODS, *CONTROLS}
    weights["vanilla"] = (finished / "seed-3/vanilla/vanilla/model.safetensors").read_bytes()
    assert len({*weights.values()}) == 6  # no two are the same
    # None is another's run under another name.
    first = losses(finished / CELL)
    assert len({first[f"compare/{n}/{rate:g}"] for n in (*METHODS, *CONTROLS)}) == 5
    assert made["no_mask"]["density"] is None
    assert made["batch_fisher"]["density"] != made["mmunlearner"]["density"]
    for name in ("report.html", "results.csv", "docs/results.md"):
        assert (finished / name).stat().st_size, name
    with (finished / "results.csv").open() as file:
        assert {row["variant"] for row in csv.DictReader(file)} == set(made)
    assert not list((finished / CELL / "checkpoints/compare").glob("*"))


def test_models_are_attacked_and_what_comes_back_is_on_the_page(finished):
    paths = {path.stem: path for path in (finished / CELL / "compare/audits").iterdir()}
    assert {*paths} == {"gold", "mmunlearner"}
    for name, path in paths.items():
        audit = json.loads(path.read_text())
        assert tuple(audit["attacks"]) == COMPARE["audit.attacks"]
        for attack in audit["attacks"].values():
            assert attack["gold"] is not None and attack["people"] == 1
            if name == "gold":  # gold is no better than gold
                assert attack["after"] == attack["gold"] and attack["above_gold"]["value"] == 0
    files = {path.name for path in (finished / CELL / "predictions").glob("audit-quantisation-*")}
    models = "before", "gold", "of-mmunlearner"  # gold is asked once
    assert files == {f"audit-quantisation-{model}.jsonl" for model in models}
    page = (finished / "docs/results.md").read_text()
    assert "### Erased or hidden?" in page and "| Quantised weights |" in page
    assert (finished / "docs/results-returning.svg").exists()
    assert "Quantised weights" in (finished / "report.html").read_text()


def test_shares_of_squared_gradients_lie_along_the_methods_path(finished):
    made = variants(finished)
    for look in made["mmunlearner"]["path"]:
        assert set(look["shares"]) == {"own", "random_mask", "other_people_mask"}
        assert all(0 < share < 1 for share in look["shares"].values())
    start = made["mmunlearner"]["path"][0]["shares"]
    assert start["own"] > start["other_people_mask"]
    assert not any("shares" in look for look in made["no_mask"]["path"])


def test_what_runs_are_followed_by_is_not_scored(finished):
    made = variants(finished)["no_mask"]
    asked = sum(n for kind in ("forget/vqa", "forget/qa") for _, n in made["end"][kind].values())
    assert set(made["path"][0]["accuracies"]) == {*made["end"]}
    whole = 8 * 7 + 6  # photographs and questions in words
    assert 0.35 * whole < asked < 0.65 * whole  # about half is set apart
    lines = (finished / CELL / "compare/predictions/no_mask-forget.jsonl").read_text().splitlines()
    assert lines and all(json.loads(line)["task"] == "generation" for line in lines)


def test_what_is_done_is_not_run_again_and_the_rest_gives_the_same(finished):
    path = finished / CELL / "results.json"
    before = json.loads(path.read_text())
    listed = compare(finished, "--dry_run").stdout.splitlines()
    assert listed[-1].split()[:3] == ["10", "of", "10"] and len(listed) == 4
    lost = json.loads(path.read_text())
    rate = lost["variants"]["no_mask"]["learning_rate"]
    del lost["variants"]["no_mask"]
    path.write_text(json.dumps(lost))
    looks = path.parent / f"compare/paths/no_mask-{rate:g}.json"
    looked = json.loads(looks.read_text())
    for file in (looks, *path.parent.glob("compare/predictions/no_mask-*")):
        file.unlink()
    code, said = signalled(line(finished), looks, signal.SIGTERM)
    assert code == 1 and "stopped by SIGTERM" in said
    assert (path.parent / f"checkpoints/compare/no_mask/{rate:g}").is_dir()
    done = compare(finished)
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads(path.read_text())
    assert json.loads(looks.read_text()) == looked
    for results in (before, after):
        for variant in results["variants"].values():
            del variant["seconds"]
    assert after["variants"] == before["variants"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seeds", (1, 1), "config.compare.seeds"),
        ("methods", ("mmunlearner", "gaa"), "'gaa'"),
        ("controls", ("no_masks",), "'no_masks'"),
        ("seeds", (3, 103), "development seeds"),
    ],
)
def test_a_mistake_is_refused_before_there_is_a_job(tmp_path, key, value, said):
    config = orl.get_config()
    config.compare[key] = value
    with pytest.raises(InputError, match=re.escape(said)):
        jobs(typed(config), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_one_line_before_anything_is_computed(tmp_path):
    done = compare(tmp_path / "run", **{"compare.forget_steps": 0})
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "config.compare.forget_steps" in error[0]
    assert not list(tmp_path.rglob("vanilla/initial"))


def test_jobs_are_listed_as_commands(tmp_path):
    done = compare(tmp_path / "run", "--list", **{"compare.seeds": "(3,4)"})
    stages = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert stages == [*"121" * 2, *"44"]
    assert not (tmp_path / "run").exists()
