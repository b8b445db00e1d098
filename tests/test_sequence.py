"""Sequences of requests: what each run is given, and the page over time by hand."""

import json

import pytest

from mmunlearner_jax import main, sequence
from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.kinds import entry
from mmunlearner_jax.reporting.sequence_page import courses, write_page

REQUESTS = (("s3",), ("s7", "s9"), ("s1",))


def score(value):
    return {"vqa": {"classification": {"value": value, "n": 8, "ci95": [0.0, 1.0]}}}


def results(before, after, **earlier):
    """Results of a run: of what is forgotten, of the kept, and after it of earlier requests."""
    whole = {"seed": 0, "kinds": entry(MLLMU.kinds), "unlearn": {"forget_steps": 4}}
    whole["unlearn"]["retain_steps"] = 8
    for when, (forget, retain) in (("before", before), ("after", after)):
        whole[when] = {"forget": score(forget), "retain": score(retain)}
    whole["after"] |= {name: score(value) for name, value in earlier.items()}
    return whole


RUNS = (
    results((1.0, 1.0), (0.2, 0.9)),
    results((0.9, 0.9), (0.3, 0.8), request_1=0.4),
    results((0.8, 0.8), (0.1, 0.7), request_1=0.5, request_2=0.35),
)


def test_each_request_goes_on_from_the_last_model(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(main, "run", lambda *run: made.append(run))
    monkeypatch.setattr("mmunlearner_jax.reporting.sequence_page.write_page", lambda *_: None)
    stages = ("prepare", "finetune", "unlearn", "evaluate", "export")
    config = Config().with_values({"data.requests": REQUESTS, "stages": stages})
    sequence.run(config, tmp_path, ["seed"])
    assert [workdir for _, workdir, _ in made] == [tmp_path / f"request-{n}" for n in (1, 2, 3)]
    assert [run.data.requests for run, _, _ in made] == [REQUESTS[:n] for n in (1, 2, 3)]
    assert made[0][0].stages == stages and made[2][0].stages == stages[2:]
    assert [run.model.checkpoint for run, _, _ in made] == [
        *("", str(tmp_path / "request-1/export"), str(tmp_path / "request-2/export"))
    ]
    first = str(tmp_path / "request-1/benchmark")
    assert [run.data.benchmark for run, _, _ in made] == ["", first, first]
    assert [overrides for _, _, overrides in made] == [["seed"], (), ()]


def test_what_every_request_needs_is_checked(tmp_path):
    with pytest.raises(InputError, match=r"config.data.requests is \(\): give the people of each"):
        sequence.run(Config(), tmp_path)
    config = Config().with_values({"data.requests": REQUESTS, "stages": ("unlearn", "evaluate")})
    with pytest.raises(InputError, match="config.stages lacks export"):
        sequence.run(config, tmp_path)


def test_scores_over_time_are_those_of_the_right_runs():
    found = {course.request: [x and x["value"] for x in course.scores] for course in courses(RUNS)}
    assert found == {
        1: [1.0, 0.2, 0.4, 0.5],
        2: [None, 0.9, 0.3, 0.35],  # before its own request, then after it and later ones
        3: [None, None, 0.8, 0.1],
        0: [1.0, 0.9, 0.8, 0.7],
    }
    since = {course.request: course.since for course in courses(RUNS)}
    assert since == {n: pytest.approx(x) for n, x in {1: 0.3, 2: 0.05, 3: 0, 0: -0.3}.items()}


def test_the_page_shows_every_request(tmp_path, capsys):
    folders = [tmp_path / f"request-{n}" for n in (1, 2, 3)]
    for folder, run in zip(folders, RUNS, strict=True):
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(run))
    write_page(tmp_path, folders, [("s3",), ("<b>",), ("s1",)])
    page = (tmp_path / "report.html").read_text()
    assert "Do earlier requests come back?" in page and "+30.0" in page and "Request 2" in page
    assert "&lt;b&gt;" in page and "<b>35" not in page and "<b>30\u00a0%</b>" in page
    assert 'href="request-3/report.html"' in page
    said = capsys.readouterr().out
    assert "before" in said and "35" in said and str(tmp_path / "report.html") in said
    (folders[0] / "results.json").write_text('{"seed": 0, "kinds": {"x": 1}}')
    with pytest.raises(InputError, match="request-1/results.json"):
        write_page(tmp_path, folders, REQUESTS)
