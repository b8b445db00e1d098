"""What cannot be scored again is named; `tests/end_to_end` does it for a whole run."""

import json

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import scored, summarise
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import rescore

CONFIG = Config().with_values({"evaluate.protocol": "plain"})

LINE = {
    "split": "forget",
    "modality": "qa",
    "task": "classification",
    "answer": "baker",
    "options": ["smith", "baker"],
    "response": "a smith",
    "scores": [-2.0, -1.0],
}


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/before-forget.jsonl").write_text(json.dumps(LINE) + "\n")
    scores = {"before": summarise([scored(LINE)])}
    (tmp_path / "results.json").write_text(json.dumps(scores, indent=2) + "\n")
    return tmp_path


def test_choices_are_made_again(workdir):
    kept = (workdir / "results.json").read_bytes()
    assert json.loads(kept)["before"]["forget"]["qa"]["classification"]["value"] == 1
    rescore.run(Session(CONFIG, workdir))
    assert (workdir / "results.json").read_bytes() == kept
    changed = LINE | {"scores": [-1.0, -2.0]}
    (workdir / "predictions/before-forget.jsonl").write_text(json.dumps(changed) + "\n")
    rescore.run(Session(CONFIG, workdir))
    results = json.loads((workdir / "results.json").read_text())
    assert results["before"]["forget"]["qa"]["classification"]["value"] == 0


def test_open_answers_are_judged_again_by_their_accepted_words(workdir):
    path, results = workdir / "predictions/before-forget.jsonl", workdir / "results.json"
    said = LINE | {"task": "generation", "options": [], "scores": [], "accepted": ["Bern", "Berne"]}
    for response, value in (("It is BERNE.", 1), ("It is Zurich.", 0)):
        path.write_text(json.dumps(said | {"response": response}) + "\n")
        rescore.run(Session(CONFIG, workdir))
        found = json.loads(results.read_text())["before"]["forget"]["qa"]
        assert found["right"]["value"] == value and "rougeL" in found
    path.write_text(json.dumps(said | {"accepted": [7]}) + "\n")
    with pytest.raises(InputError, match="accepted has a member that is not"):
        rescore.run(Session(CONFIG, workdir))


def test_what_is_missing_or_damaged_is_named(workdir):
    path = workdir / "predictions/before-forget.jsonl"
    path.write_text(json.dumps(LINE) + "\n{")
    with pytest.raises(InputError, match=r"forget.jsonl, line 2: JSONDecodeError .*restore"):
        rescore.run(Session(CONFIG, workdir))
    path.unlink()
    with pytest.raises(InputError, match="before-forget.jsonl: is missing; restore it"):
        rescore.run(Session(CONFIG, workdir))
    (workdir / "results.json").unlink()
    with pytest.raises(InputError, match="holds no scores; run the stage evaluate"):
        rescore.run(Session(CONFIG, workdir))
