"""The comparison as its users run it, with few steps of everything: jobs, report, resuming."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import FLAGS, FOREIGN, ROOT, SHORT, TEXT_FIRST, loaded, signalled

METHODS, CONTROLS = ("mmunlearner",), ("no_mask", "forget_top", "batch_fisher", "lora")
COMPARE = {
    "compare.seeds": "(3,)",
    "compare.ratios": "(10,)",
    "compare.methods": METHODS,
    "compare.learning_rates": "(1e-4,3e-4)",
    "compare.controls": CONTROLS,
    "compare.iterations": 4,
    "compare.stop_every": 2,
    "compare.forgotten": 0.01,  # so that both looks are made
    "compare.tasks": '("classification","generation")',
    "evaluate.splits": '("forget","test")',
}


def line(workdir: Path, *arguments: str, **overrides) -> list[str]:
    given = {**SHORT, **TEXT_FIRST, **COMPARE, **overrides}
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


def variants(workdir: Path) -> dict:
    return json.loads((workdir / "seed-3/forget-10/results.json").read_text())["variants"]


def test_every_row_is_made_and_reported(finished):
    made = variants(finished)
    assert tuple(made) == ("vanilla", "retain_only", *METHODS, *CONTROLS)
    for name in METHODS:
        points = made[name]["points"]
        assert [(p["learning_rate"], p["iteration"]) for p in points] == [
            *((1e-4, 2), (1e-4, 4), (3e-4, 2), (3e-4, 4))
        ]
        assert [p["chosen"] for p in points].count(True) == 1
    rate = made["mmunlearner"]["learning_rate"]
    for name in CONTROLS:
        assert made[name]["control"] and made[name]["learning_rate"] == rate
        assert len(made[name]["points"]) == 2
    assert (finished / "seed-3/forget-10/importance_by_batch/importance").is_dir()
    losses = {
        row["stage"]: row["retain_loss"]
        for row in map(json.loads, (finished / "seed-3/forget-10/metrics.jsonl").open())
        if row["step"] == 4 and "retain_loss" in row
    }
    # None is another's run under another name.
    assert len({losses[f"compare/{name}/{rate:g}"] for name in (*METHODS, *CONTROLS)}) == 5
    assert made["no_mask"]["density"] is None
    assert made["forget_top"]["density"] == pytest.approx(made["mmunlearner"]["density"])
    assert made["batch_fisher"]["density"] != made["mmunlearner"]["density"]
    for name in ("report.html", "results.csv", "docs/results.md"):
        assert (finished / name).stat().st_size, name
    with (finished / "results.csv").open() as file:
        assert {row["variant"] for row in csv.DictReader(file)} == set(made)
    assert not list((finished / "seed-3/forget-10/checkpoints/compare").glob("*"))


def test_what_settings_are_chosen_by_is_not_scored(finished):
    cell = finished / "seed-3/forget-10"
    lines = (cell / "compare/predictions/no_mask-forget.jsonl").read_text().splitlines()
    scored = [line["task"] for line in map(json.loads, lines)].count("classification")
    looks = [point["selection"] for point in variants(finished)["no_mask"]["points"]]
    assert [sorted(look["forget"]) for look in looks] == [["vqa"], ["qa", "vqa"]]
    asked = sum(score["n"] for score in looks[-1]["forget"].values())
    assert asked and scored + asked == 4 * 8 * 7 + 4 * 6  # photographs and questions in words


def test_what_is_done_is_not_run_again_and_the_rest_gives_the_same(finished):
    path = finished / "seed-3/forget-10/results.json"
    before = json.loads(path.read_text())
    told = compare(finished, "--dry_run").stdout.splitlines()
    assert told[-1].split()[:3] == ["7", "of", "7"] and len(told) == 3
    lost = json.loads(path.read_text())
    rate = lost["variants"]["no_mask"]["learning_rate"]
    del lost["variants"]["no_mask"]
    path.write_text(json.dumps(lost))
    looks = path.parent / f"compare/looks/no_mask-{rate:g}.json"
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
        ("compare.seeds", "(1,1)", "config.compare.seeds"),
        ("compare.methods", '("mmunlearner","gaa")', "'gaa'"),
        ("compare.controls", '("no_masks",)', "'no_masks'"),
        ("compare.iterations", 0, "config.compare.iterations"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_computed(tmp_path, key, value, said):
    done = compare(tmp_path / "run", **{key: value})
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and said in error[0]
    assert not list(tmp_path.rglob("vanilla/initial"))


def test_jobs_are_listed_as_commands(tmp_path):
    done = compare(tmp_path / "run", "--list", **{"compare.seeds": "(3,4)"})
    stages = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert stages == ["1", "1", "2"] * 2
    assert not (tmp_path / "run").exists()
