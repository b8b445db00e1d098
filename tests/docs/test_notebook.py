"""The notebook, executed as it stands there, and kept without its outputs."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.flags import COMPILED_FAST

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/notebooks/forget_a_face.ipynb"


def test_outputs_are_not_kept():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_one_masked_step_forgets_more_of_a_face_than_of_anything_else(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("XLA_FLAGS", COMPILED_FAST)  # one device
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    show = "import json; print(json.dumps([before, after, figure.get_axes() != []]))"
    notebook.cells.append(nbformat.v4.new_code_cell(show))
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    printed = "".join(x.text for x in notebook.cells[-1].outputs if x.output_type == "stream")
    before, after, drawn = json.loads(printed)
    assert drawn and min(before.values()) > 0.8
    lost = {kind: before[kind] - after[kind] for kind in before}
    assert lost["the forgotten, pictures"] > 0.2, lost
    assert lost["the forgotten, pictures"] > 2 * lost["others, pictures"], lost
