"""What is passed on has no names, facts and faces; what has them is listed and removed."""

import json
from types import SimpleNamespace

import pytest

from mmunlearner_jax import purge
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.reporting.cases import Case
from mmunlearner_jax.request.needs import check_disk
from mmunlearner_jax.request.redaction import Redaction

REDACTION = Redaction(["Eva Falk", "Bo Li", "Åsa Öberg"], ["baker", "São Paulo"])


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("This is Eva Falk.", "This is [name]."),
        ("photos/Eva_Falk/1.png", "photos/[name]/1.png"),
        ("EVA-FALK, falk and Eva's", "[name], [name] and [name]'s"),
        ("Bo Li, but a boat, a list and Li", "[name], but a boat, a list and Li"),
        ("Evaluate Falkland", "Evaluate Falkland"),
        ("åsa öberg", "[name]"),
        ("A baker from são paulo.", "A [fact] from [fact]."),
    ],
)
def test_names_and_facts_are_replaced_as_words(text, redacted):
    assert REDACTION.text(text) == redacted


def test_keys_and_numbers_stay():
    value = {"Eva Falk": [1, "Eva", None, {"x": True}]}
    assert REDACTION.all_texts(value) == {"Eva Falk": [1, "[name]", None, {"x": True}]}


def test_predictions_lose_photographs():
    line = {"person": "person", "question": "Is it Eva?", "response": "A baker.", "options": ["Li"]}
    predictions = SimpleNamespace(
        names={"person": "Eva Falk", "other-1": "Bo Li"}, cases={"test": [Case(line, line, b"x")]}
    )
    redacted = REDACTION.predictions(predictions)  # pyright: ignore
    assert redacted.names == {"person": "the person", "other-1": "somebody else (other-1)"}
    (case,) = redacted.cases["test"]
    assert case.photo is None and case.after["response"] == "A [fact]."
    assert predictions.cases["test"][0].photo == b"x"


def test_without_names_nothing_is_replaced():
    assert Redaction([""]).text("Eva") == "Eva"


def test_purge_leaves_what_is_passed_on(tmp_path):
    for name in ("model", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("x")
    (tmp_path / "record.json").write_text("{}")
    found = purge.holding(tmp_path)
    assert [*found] == [tmp_path / "work"]
    purge.purge(tmp_path, found)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "record.json"}
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["purged"]["removed"] == ["work"] and record["purged"]["date"]
    assert purge.holding(tmp_path) == {}


def test_purge_of_a_run_leaves_the_exported_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name in ("export", "vanilla", "predictions", "mask"):
        (tmp_path / name).mkdir()
    (tmp_path / "report.html").touch()
    found = purge.holding(tmp_path)
    assert {path.name for path in found} == {"vanilla", "predictions", "report.html"}
    purge.purge(tmp_path, found)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "export", "mask"}


def test_purge_refuses_other_folders(tmp_path):
    (tmp_path / "vanilla").mkdir()
    (tmp_path / "work").mkdir()  # somebody's own
    with pytest.raises(InputError, match="no folder of a request or of a run"):
        purge.holding(tmp_path)


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=2**30)
    monkeypatch.setattr("mmunlearner_jax.request.needs.shutil.disk_usage", lambda path: usage)
    check_disk(tmp_path / "not/there", 2**30)
    with pytest.raises(InputError, match=r"1\.0 GiB of disk are free, but 2\.0 GiB are needed"):
        check_disk(tmp_path / "not/there", 2**31)
