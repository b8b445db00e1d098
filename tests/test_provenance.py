"""What a run records about itself."""

import hashlib
import json
import sys
from types import SimpleNamespace

import pytest

from mmunlearner_jax import provenance
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/model.safetensors").write_bytes(b"weights")
    return tmp_path


def entry(workdir):
    return json.loads((workdir / "results.json").read_text())["provenance"]


def test_options_of_the_command_line_are_told_from_those_of_the_file():
    config = Config().with_values({"seed": 3, "unlearn.alpha": 0.5})
    assert provenance.config_differences(config, ["unlearn.alpha"]) == {
        "command_line": {"unlearn.alpha": 0.5},
        "config_file": {"seed": 3},
    }


def test_hashes_are_those_of_sha256sum(workdir):
    digest = hashlib.sha256(b"weights").hexdigest()
    assert provenance.weight_hashes(workdir / "export") == {"model.safetensors": digest}
    with pytest.raises(InputError, match="has no .*safetensors; give the folder of a checkpoint"):
        provenance.weight_hashes(workdir)


def test_stages_name_their_commands_and_repeat_nothing(workdir, monkeypatch):
    session = SimpleNamespace(config=Config(), workdir=workdir)
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir=a folder"])
    provenance.record(session, "unlearn", [])
    provenance.record(session, "export", [])
    first = entry(workdir)
    assert len(first["commands"]) == 1
    (key,) = first["commands"]
    assert first["stages"]["unlearn"]["commands"] == [key]
    assert first["stages"]["unlearn"]["peak_bytes"]["host"] > 2**20
    content = first["commands"][key]
    assert content["command"].endswith("'--workdir=a folder'")
    assert content["versions"]["jax"] and content["device"].endswith(")")
    assert {*content} == {"command", "config", "commit", "versions", "device", "processes"}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert first["checkpoints"]["after"] == {
        "folder": "export",
        "weights": {"model.safetensors": digest},
    }
    # The stage goes on in another command.
    monkeypatch.setattr(sys, "argv", ["main.py"])
    provenance.record(session, "unlearn", [])
    second = entry(workdir)
    assert len(second["commands"]) == 2 and second["checkpoints"] == first["checkpoints"]
    assert second["stages"]["unlearn"]["commands"] == [*second["commands"]]
    assert second["stages"]["export"] == first["stages"]["export"]


def test_a_package_outside_of_a_checkout_has_no_commit(tmp_path, monkeypatch):
    provenance.commit.cache_clear()
    monkeypatch.setattr(provenance.mmunlearner_jax, "__file__", str(tmp_path / "site/package/a.py"))
    assert provenance.commit() is None
    provenance.commit.cache_clear()
