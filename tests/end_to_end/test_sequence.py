"""A sequence of two requests, whole and small: each goes on from the last model."""

import json
import os
import subprocess

import pytest

from tests.helpers.commands import FLAGS, ROOT, command


@pytest.mark.slow
def test_two_requests(tmp_path):
    """The model begins untaught; what matters here is which files each request reads and writes."""
    workdir = tmp_path / "sequence"
    options = {
        "data.requests": (("s3",), ("s7",)),
        "data.forget_ratio": 10,
        "model.checkpoint": workdir / "request-1/initial",
        "stages": ("prepare", "unlearn", "evaluate", "export"),
        "unlearn.method": "ga",
        "unlearn.iterations": 2,
        "evaluate.most_questions": 8,
    }
    line = command(workdir, **options)
    line[line.index("mmunlearner_jax.main")] = "mmunlearner_jax.sequence"
    env = {**os.environ, **FLAGS}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Requests over time" in done.stdout
    first, second = (
        json.loads((workdir / f"request-{n}/results.json").read_text()) for n in (1, 2)
    )
    assert "request_1" not in first["after"]
    own, again = first["after"]["forget"], second["before"]["request_1"]
    assert again == own  # the second request began with the model that the first one left
    assert second["after"]["request_1_test"].keys() == {"vqa", "qa"}
    assert "Request 2" in (workdir / "report.html").read_text()
