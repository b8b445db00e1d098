"""The example of flags cut down: eight countries, two layers of the real decoder, a few steps."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.commands import FOREIGN, loaded, run
from tests.helpers.countries import write_countries

STAGES = "prepare align finetune evaluate importance mask unlearn evaluate export report"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flags")
    countries = write_countries(folder / "countries")
    workdir = folder / "run"
    done = run(
        workdir, "flags", **{"prepare.flags_folder": countries, "stages": tuple(STAGES.split())}
    )
    assert not FOREIGN & loaded(done)
    return workdir


def language(folder):
    named = load_file(folder / "model.safetensors")
    return {name: x for name, x in named.items() if "language_model" in name}


def test_open_answers_are_scored_by_the_right_word_before_and_after(finished):
    results = json.loads((finished / "results.json").read_text())
    for label in ("before", "after"):
        for split in ("forget", "test", "test_retain", "realworld"):
            for modality in ("vqa", "qa"):
                scores = results[label][split][modality]
                assert {"classification", "right"} <= scores.keys(), (split, modality)
                assert 1 <= scores["right"]["n"] <= 2
    unlearned = results["unlearn"]
    assert unlearned["forget_steps"] == 2
    assert 0 < unlearned["remembered"] and 0 < unlearned["remembered_before"] < 1
    assert (finished / "report.html").exists()


def test_nothing_before_unlearning_moves_the_decoder(finished):
    start, *later = (language(finished / name) for name in ("initial", "aligned", "vanilla"))
    assert len(start) > 10
    for after in later:
        assert start.keys() == after.keys()
        for name, array in start.items():
            np.testing.assert_array_equal(after[name], array)
    end = language(finished / "export")
    assert any(np.any(end[name] != array) for name, array in start.items())
