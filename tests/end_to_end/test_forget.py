"""`mmu forget` as a person with a request uses it: photographs in folders, and a small model."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from tests.helpers.commands import FLAGS, ROOT, run
from tests.helpers.photograph_folders import write_folders

# 12 people, whose names a small LLaVA learns in a hundred steps.
LEARNED = {
    "stages": "('prepare','finetune')",
    "checkpoint_every": 200,
    "prepare.text.hidden_size": 64,
    "prepare.text.intermediate_size": 128,
    "prepare.vision.hidden_size": 64,
    "prepare.vision.intermediate_size": 128,
    "finetune.steps": 140,
    "finetune.warmup": 10,
    "finetune.learning_rate": 1e-2,
    "finetune.weight_decay": 0.05,
    "finetune.text_first": 0,
    "finetune.frozen": "()",
    "finetune.picture_batch": 48,
    "finetune.pack": 6,
    "finetune.text_batch": 24,
    "finetune.text_pack": 6,
}
QUICK = {
    "unlearn.iterations": 16,
    "unlearn.warmup": 31,
    "unlearn.learning_rate": 2e-4,
    "unlearn.stop_every": 8,
    "audit.attacks": "('quantisation',)",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model that knows 12 people, and their photographs."""
    place = tmp_path_factory.mktemp("request")
    run(place / "learned", **LEARNED)
    name = write_folders(
        place / "photos", place / "learned/benchmark", forgotten="s3", photographs=8
    )
    (place / "name").write_text(name)
    return place


def forget(place, out, *more, **config):
    line = [sys.executable, "-m", "mmunlearner_jax", "forget"]
    line += [f"--model={place / 'learned/vanilla'}", f"--person={place / 'photos/person'}"]
    line += [f"--keep={place / 'photos/others'}", f"--out={out}", *more]
    line += [f"--config.{key}={value}" for key, value in config.items()]
    if not any(x.startswith("--name=") for x in more):
        line.append(f"--name={(place / 'name').read_text()}")
    return subprocess.run(line, cwd=ROOT, env=os.environ | FLAGS, capture_output=True, text=True)


def test_what_the_model_does_not_know_is_refused_and_nothing_is_written(place, tmp_path):
    done = forget(place, tmp_path / "out", "--name=Nobody Known")
    assert done.returncode == 1 and done.stdout == ""
    *_, line = done.stderr.splitlines()
    assert "names the person on none of 8 photographs, so there is nothing to forget" in line
    assert not (tmp_path / "out").exists()


def test_a_request_gives_a_model_a_page_and_a_record(place, tmp_path):
    out, name = tmp_path / "out", (place / "name").read_text()
    told = forget(place, out, "--check", **QUICK)
    assert (told.returncode, told.stdout) == (0, "") and not out.exists()
    first, *_, last = told.stderr.splitlines()
    assert first == "what is written about the person is kept (--also-words forgets it, too)"
    assert "MiB of a device at least" in last and "minutes" in last and "disk" in last
    assert "the model names the person on" in told.stderr

    done = forget(place, out, **QUICK)
    record = json.loads((out / "record.json").read_text())
    bars = [score for score in record["scores"] if score["bar"] is not None]
    assert done.returncode == (0 if all(score["met"] for score in bars) else 3), done.stderr
    assert done.stderr.count("missed: ") == sum(not score["met"] for score in bars)
    assert {p.name for p in out.iterdir()} == {"model", "report.html", "record.json", "work"}
    _check_record(record, place, out)
    page = (out / "report.html").read_text()
    for text in (page, json.dumps(record)):
        assert not any(part in text for part in name.split()) and "webp" not in text
    before, after = (load_file(x / "model.safetensors") for x in _models(place, out))
    moved = {key for key in before if (before[key] != after[key]).any()}
    assert moved and not any("language_model" in key for key in moved)

    shutil.rmtree(out / "work")  # as `mmu purge` does
    again = forget(place, out, **QUICK)
    assert (
        again.returncode == 1 and "holds a finished request whose work/ was removed" in again.stderr
    )


def _models(place, out):
    return place / "learned/vanilla", out / "model"


def _check_record(record, place, out):
    assert record["request"]["photographs_learned_from"] == 6
    assert record["request"]["photographs_set_apart"] == 2
    kinds = {score["kind"] for score in record["scores"]}
    assert {"Forgotten people, unseen photographs", "Forgotten people, in words"} <= kinds
    assert all(len(x["ci95"]) == 2 for s in record["scores"] for x in (s["before"], s["after"]))
    named = [
        s
        for s in record["scores"]
        if s["kind"] == "Forgotten people, training photographs" and s["metric"].endswith("word")
    ]
    assert named[0]["after"]["value"] < named[0]["before"]["value"]
    assert record["audit"]["quantisation"]["verdict"]
    assert {*record["weights"]} == {"before", "after"}
    (command,) = record["commands"].values()
    assert "[name]" in command["command"] and command["versions"]["jax"]
    assert "no certificate of erasure" in record["what_this_does_not_show"][0]
    sums = subprocess.run(
        ["sha256sum", out / "model/model.safetensors"], capture_output=True, text=True
    )
    assert sums.stdout.split()[0] == record["weights"]["after"]["weights"]["model.safetensors"]
