import os
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mmunlearner_jax.config import Config
from mmunlearner_jax.data import sources
from mmunlearner_jax.data.benchmarks import BENCHMARKS
from mmunlearner_jax.data.sources import fetched
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import benchmark_folder

ROOT = Path(__file__).parents[2]
CLEAR = "hf://datasets/therem/CLEAR"
PINS = {r.repository: r.revision for r in BENCHMARKS.values() if r.revision}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands in for the hub: gives `root` or raises `error`, and keeps what it was asked."""

    class Hub:
        root, error, asked = tmp_path, None, []

    def give(repository, **options):
        Hub.asked.append((repository, options["revision"]))
        assert options["repo_type"] == "dataset" and options["allow_patterns"] == ["*.parquet"]
        if Hub.error:
            raise Hub.error
        return str(Hub.root)

    monkeypatch.setattr(sources, "snapshot_download", give)
    return Hub


def mistake(name):
    with pytest.raises(InputError) as error:
        fetched(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def refused(kind, status):
    request = httpx2.Request("GET", "https://huggingface.co")
    return kind("No.\nReally no.", response=httpx2.Response(status, request=request))


def test_pins_of_mllmu_and_clear_are_those_of_the_manifest():
    manifest = tomllib.loads((ROOT / "third_party/manifest.toml").read_text())
    revisions = {artefact["name"]: artefact["revision"] for artefact in manifest["artefact"]}
    assert PINS == {name: revisions[name] for name in PINS}


def test_what_a_benchmark_reads_is_fetched(tmp_path, monkeypatch):
    asked = []

    def give(repository, **options):
        asked.append(options["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(sources, "snapshot_download", give)
    assert fetched("hf://datasets/gray311/FIUBench@main") == tmp_path
    assert fetched("hf://datasets/somebody/tables@main", ("*.tsv",)) == tmp_path
    assert asked == [["*.json", "*.jpg", "*.jpeg", "*.png"], ["*.tsv"]]
    assert "has no revision, and none is pinned" in mistake("hf://datasets/gray311/FIUBench")


def test_a_folder_stays_as_it_is(tmp_path, hub):
    assert fetched(str(tmp_path)) == tmp_path
    assert fetched("~/absent") == Path.home() / "absent"
    assert hub.asked == []


def test_clear_is_fetched_at_the_pinned_or_the_named_revision(clear, hub):
    hub.root = clear.write()
    assert fetched(CLEAR) == fetched(f"{CLEAR}@main") == hub.root
    assert fetched("hf://datasets/somebody/CLEAR@v1.2") == hub.root
    assert hub.asked == [
        ("therem/CLEAR", PINS["therem/CLEAR"]),
        ("therem/CLEAR", "main"),
        ("somebody/CLEAR", "v1.2"),
    ]


def test_a_run_fetches_mllmu(published, hub, tmp_path):
    hub.root = published.write()
    config = Config().with_values({"data.benchmark": "hf://datasets/MLLMMU/MLLMU-Bench"})
    assert benchmark_folder(config, tmp_path / "workdir") == hub.root
    config = config.with_values({"data.benchmark": str(tmp_path / "absent")})
    with pytest.raises(InputError, match="absent is missing: set config.data.benchmark"):
        benchmark_folder(config, tmp_path / "workdir")


@pytest.mark.parametrize(
    "name",
    ["hf:/datasets/therem/CLEAR", "hf://", "hf://therem/CLEAR", "hf://datasets/CLEAR"]
    + [f"{CLEAR}@", f"{CLEAR}/full", "hf://datasets/therem/CLEAR..git"],
)
def test_a_malformed_name_is_told(name, hub):
    assert f"{name}: is no address of a data set" in mistake(name)
    assert "write hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME@REVISION" in mistake(name)
    assert hub.asked == []


def test_no_revision_is_guessed(hub):
    assert "add one, or @main" in mistake("hf://datasets/somebody/CLEAR")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused(GatedRepoError, 403), "it is gated: ask for access"),
        (refused(RepositoryNotFoundError, 404), "no such data set, or a private one"),
        (refused(RevisionNotFoundError, 404), "no such revision: give another"),
        (httpx2.ConnectError("Name or\nservice not known"), "ConnectError: Name or service not"),
        (LocalEntryNotFoundError("Got: x\ny"), "cannot be fetched (LocalEntryNotFoundError"),
        (OSError(28, "No space left on device"), "No space left on device): check the network"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why_clear_cannot_be_fetched_is_told_with_a_way_around_it(error, message, hub):
    hub.error = error
    said = mistake(f"{CLEAR}@main")
    assert said.startswith(f"{CLEAR}@main: ") and message in said
    assert "`hf download therem/CLEAR --repo-type dataset --revision main --include" in said


def test_a_repository_without_configs(hub):
    assert "holds no CONFIG/*.parquet; name another" in mistake(f"{CLEAR}@main")


def test_clear_without_network(tmp_path):
    code = f"from mmunlearner_jax.data.sources import fetched; fetched({CLEAR!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"mmunlearner_jax.errors.InputError: {CLEAR}@{PINS['therem/CLEAR']}: ")
    assert "it is not in the cache, and HF_HUB_OFFLINE forbids downloads: unset it" in last
    assert "hf download therem/CLEAR" in last
