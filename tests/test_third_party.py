import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MANIFEST = tomllib.loads((ROOT / "third_party/manifest.toml").read_text())
REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{7}|[\w-]+[=>]=[\d.]+|resolve before first use")


def titled(tables, key):
    return [pytest.param(table, id=table[key]) for table in tables]


@pytest.mark.parametrize("artefact", titled(MANIFEST["artefact"], "name"))
def test_artefact_has_licence_revision_and_users(artefact):
    assert artefact["kind"] in {"model", "dataset", "code"}
    assert artefact["source"].startswith("https://")
    assert artefact["licence"]
    assert REVISION.fullmatch(artefact["revision"])
    assert not artefact["revision"].startswith("resolve") or "revision_basis" not in artefact
    assert re.fullmatch(r"[0-9a-f]{64}", artefact.get("sha256", "0" * 64))
    assert artefact["note"]
    assert [path for path in artefact["used_in"] if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("figures", titled(MANIFEST["figures"], "title"))
def test_figures_name_their_source_and_status(figures):
    assert {"source", "claim_of", "setting", "unit"} <= figures.keys()
    hearsay = {"second-hand, unverified", "issue thread, unverified"}
    assert figures["status"] in hearsay or (figures["status"] == "verified" and figures["table"])
    assert figures["rows"]
    for values in figures["rows"].values():
        assert len(values) == len(figures["columns"])
        assert all(isinstance(value, int | float) or value == "-" for value in values)


def test_names_are_unique():
    names = [artefact["name"] for artefact in MANIFEST["artefact"]]
    assert len(names) == len(set(names))
