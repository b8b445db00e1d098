"""Both benchmarks whole: every config's files, every split, statistics, scoring again."""

import json
import subprocess
import sys

import pytest

from mmunlearner_jax.data.abilities import ABILITIES
from tests.helpers import abilities
from tests.helpers.commands import FOREIGN, ROOT, loaded, run

TEXTS = {"rouge1", "rouge2", "rougeL", "rougeL_recall", "bleu"}
RATES = {"value", "n", "ci95"}


def entries(scores):
    return {
        (split, modality): set(metrics)
        for split, by_modality in scores.items()
        for modality, metrics in by_modality.items()
    }


def again(workdir, config, **overrides):
    """Scores the predictions once more; returns what was there before and is there now."""
    kept = (workdir / "results.json").read_bytes()
    run(workdir, config, stages='("rescore",)', **overrides)
    return kept, (workdir / "results.json").read_bytes()


@pytest.fixture(scope="module")
def retain_only(tmp_path_factory):
    """A model that never saw the people to forget."""
    workdir = tmp_path_factory.mktemp("clear") / "retain"
    stages = '("prepare","finetune","evaluate")'
    run(workdir, "orl_clear", stages=stages, **{"finetune.retain_only": "never_taught"})
    return workdir


@pytest.fixture(scope="module")
def given(retain_only):
    """Options of the whole run: all sets of general ability are asked, too."""
    folder = abilities.write(retain_only.with_name("general"))
    general = {"evaluate.general": str(tuple(ABILITIES)), "evaluate.general_files": folder}
    return general | {"evaluate.reference": retain_only, "controls": "()"}


@pytest.fixture(scope="module")
def clear(retain_only, given):
    workdir = retain_only.with_name("run")
    done = run(workdir, "orl_clear", **given)
    assert not FOREIGN & loaded(done)
    assert "General ability: after minus before" in done.stdout
    return workdir


def test_clear_is_evaluated_whole(clear):
    results = json.loads((clear / "results.json").read_text())
    letters = {"classification", "naming", "naming_probability", "naming_truth_ratio"}
    captions = letters | TEXTS | {"probability", "truth_ratio"}
    for label in ("before", "after"):
        assert entries(results[label]) == {
            ("forget", "vqa"): captions,
            ("forget", "qa"): TEXTS,
            ("retain", "vqa"): captions,
            ("retain", "qa"): TEXTS,
            ("real_faces", "vqa"): letters,
            ("realworld", "vqa"): letters,
            **{(about.split, "vqa"): {"short"} for about in ABILITIES.values()},
            ("general_vizwiz", "vqa"): {"short", "vqa_score"},
        }
        for by_modality in results[label].values():
            for metrics in by_modality.values():
                assert all(score.keys() == RATES for score in metrics.values())
        assert results["model_utility"][label].keys() == RATES | {"entries"}
        assert set(results["model_utility"][label]["entries"]) == {
            *("retain naming", "retain generation", "real_faces naming", "realworld naming")
        }
        quality = results["forget_quality"][label]
        assert set(quality) == {"naming", "generation"} and quality["naming"]["n"] == 8
        assert 0 <= quality["generation"]["p_value"] <= 1
    assert "In TOFU's terms" in (clear / "report.html").read_text()


def test_general_ability_is_measured_before_and_after(clear):
    general = json.loads((clear / "results.json").read_text())["general"]
    assert set(general) == {"before", "after", "change"}
    assert all(set(entries) == set(ABILITIES) for entries in general.values())
    pope = general["after"]["pope"]
    assert set(pope["categories"]) == {"adversarial", "popular", "random"}
    assert pope["f1"].keys() == RATES and general["change"]["pope"].keys() > RATES
    assert general["before"]["mmbench_circular"]["score"]["n"] == 2  # of eight rotations
    lines = (clear / "predictions/after-general_mmbench_circular.jsonl").read_text().splitlines()
    assert len(lines) == 8
    chance = json.loads((clear / "results.json").read_text())["chance"]
    floors = {name: chance[f"general_{name}/vqa"]["uniform"] for name in ABILITIES}
    assert floors == {
        **{"gqa": 0, "mmbench": 1 / 4, "mmbench_circular": 1 / 4**4, "mmmu": 1 / 8},
        **{"mmstar": 1 / 4, "pope": 1 / 2, "scienceqa": 1 / 3, "vizwiz": 0},
    }
    page = (clear / "report.html").read_text()
    assert "General ability, MMBench, CircularEval" in page and "adversarial" in page
    assert "how the score of each set changed" in page.lower()


def test_clear_scored_again_gives_the_same_bytes(clear, given):
    kept, now = again(clear, "orl_clear", **given)
    assert now == kept


def test_mllmu_is_evaluated_by_its_protocol_with_shots(tmp_path):
    """Letters, demonstrations and both parsers, with a model that never heard of letters."""
    workdir = tmp_path / "run"
    given = {
        "model.checkpoint": workdir / "initial",
        "evaluate.protocol": "strict",
        "evaluate.shots": 1,
        "evaluate.splits": '("forget","realworld")',
        "prepare.text.max_position_embeddings": 1024,  # for seven solved questions
    }
    done = run(workdir, stages='("prepare","evaluate")', **given)
    assert not FOREIGN & loaded(done)
    results = json.loads((workdir / "results.json").read_text())
    every = {"classification", "classification_letter", "cloze", "cloze_exact", "words", *TEXTS}
    found = entries(results["before"])
    for split in ("forget", "realworld"):
        assert found[split, "vqa"] == found[split, "qa"] == every
    lines = (workdir / "predictions/before-forget.jsonl").read_text().splitlines()
    shown = [line.get("shots") for line in map(json.loads, lines) if line["task"] != "generation"]
    assert len({str(people) for people in shown}) == 1 and shown[0]
    kept, now = again(workdir, "orl", **given)
    assert now == kept


OTHERS = {
    "fiubench": {
        ("forget", "vqa"): TEXTS | {"keywords", "right", "probability", "truth_ratio"},
        ("paraphrased", "vqa"): TEXTS | {"keywords", "right"},
        ("retain", "vqa"): TEXTS | {"keywords", "right", "probability", "truth_ratio"},
    },
    "umu": {
        (split, modality): {"classification", "cloze", "cloze_exact", "words", *TEXTS}
        for split in ("forget", "retain", "realworld")
        for modality in ("vqa", "qa")
    },
    "ppu": {
        (split, modality): {"classification", "cloze", "cloze_exact", "words", *TEXTS}
        for split in ("forget", "retain")
        for modality in ("vqa", "qa")
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_benchmark_is_evaluated_whole_and_scored_again(tmp_path, name):
    workdir = tmp_path / "run"
    given = {
        "prepare.benchmark": name,
        "model.checkpoint": workdir / "initial",
        "data.forget_ratio": 5,
        "data.request": "persona",
    }
    done = run(workdir, stages='("prepare","evaluate")', **given)
    assert not FOREIGN & loaded(done)
    results = json.loads((workdir / "results.json").read_text())
    assert entries(results["before"]) == OTHERS[name]
    assert ("both_modalities" in results) == (name == "umu")
    kept, now = again(workdir, "orl", **given)
    assert now == kept


def test_clear_both_ways_of_asking_give_the_same_answers(clear, tmp_path):
    out = tmp_path / "evaluation.json"
    line = [
        *(sys.executable, "benchmarks/evaluation.py", "--config=configs/orl_clear.py"),
        *(f"--workdir={clear}", "--rounds=1", "--questions=6", f"--out={out}"),
        *("--config.evaluate.photos_per_person=1", "--config.evaluate.decode.max_new_tokens=4"),
    ]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "same answers: 6 of 6" in done.stdout and "questions/s" in done.stdout
    assert json.loads(out.read_text())["same_answers"] == [6, 6]
