"""Damaged results, configs, metrics and predictions: one line names the file and the mend."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from configs import orl
from mmunlearner_jax import main
from mmunlearner_jax.comparison.cells import read_cells
from mmunlearner_jax.comparison.runs import _read
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.predictions import read_predictions
from mmunlearner_jax.evaluation.reference import find_reference
from mmunlearner_jax.metrics import Metrics, read_metrics
from mmunlearner_jax.reporting.run_page import charts
from mmunlearner_jax.results import read_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report, rescore
from mmunlearner_jax.stages.evaluate import evaluate

# What no JSON file of ours holds.
BROKEN = {
    "empty": b"",
    "cut off": b'{"seed": 0, "before": {"for',
    "binary": bytes(range(256)),
    "a list": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "NaN": b'{"seed": NaN}',
    "Infinity": b'{"before": {"value": -Infinity}}',
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "Latin-1": '{"seed": "ä"}'.encode("latin-1"),
    "zeros": b"\0" * 4096,
}
CONFIG = typed(orl.get_config())
broken = pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())


def refused(act: Any, *named: str) -> None:
    with pytest.raises(InputError) as error:
        act()
    line = str(error.value)
    assert len(line) <= 600 and line.isprintable() and ";" in line, line
    for name in named:
        assert name in line


def score(**other: Any) -> dict[str, Any]:
    return {"value": 0.5, "n": 4, "ci95": [0.2, 0.8]} | other


def scores(**other: Any) -> dict[str, Any]:
    return {"forget": {"vqa": {"classification": score(**other)}}}


RESULTS = {"seed": 0, "before": scores(), "after": scores()}


@broken
def test_results(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    refused(lambda: read_results(tmp_path), "results.json", "restore it")


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "0"},
        {"before": []},
        {"controls": "ga"},
        {"variants": [1]},
        {"seconds": 1},
        {"after": scores(value="half")},
        {"after": scores(value=None)},
        {"after": scores(value=True)},
        {"after": scores(n=[4])},
        {"after": scores(ci95=0.2)},
        {"after": scores(ci95=[0.2])},
        {"after": scores(ci95=[0.2, "b"])},
        {"mask": {"by_block": {"a": "dense"}}},
        {"after": {}},
        {"after": {"forget": {"vqa": {"classification": {"value": 0.5}}}}},
        {"before": {"forget": []}},
        {"before": {"forget": {"vqa": 3}}},
        {"model_utility": {}},
        {"forget_quality": {"after": {"naming": {"p_value": "x", "n": 1}}}},
        {"controls": {"ga": 5}},
    ],
    ids=str,
)
def test_results_of_wrong_types(tmp_path, wrong):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS | wrong))
    refused(lambda: report.run(Session(CONFIG, tmp_path)), "results.json", "restore it")


@broken
def test_the_config_of_a_workdir(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    config = CONFIG
    refused(lambda: main.check_workdir(config, tmp_path), "config.json", "--workdir")


@broken
def test_the_config_of_a_reference(tmp_path, content):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/before-forget.jsonl").write_text("")
    (tmp_path / "config.json").write_bytes(content)
    config = CONFIG.with_values({"evaluate.reference": str(tmp_path)})
    refused(lambda: find_reference(config), "config.json", "give the workdir")


@broken
def test_a_file_of_a_comparisons_cell(tmp_path, content):
    cell = tmp_path / "seed-0/forget-5"
    cell.mkdir(parents=True)
    config, results = cell / "config.json", cell / "results.json"
    variant = {"method": None, "learning_rate": None, "path": []}
    results.write_text(json.dumps({"variants": {"vanilla": variant}}))
    config.write_bytes(content)
    refused(lambda: read_cells(tmp_path), "config.json", "compare again")
    config.write_text(json.dumps({"seed": 0, "data": {"forget_ratio": 5}}))
    assert len(read_cells(tmp_path)) == 1
    for wrong in ({}, [], variant | {"path": 0}, {"method": None}):
        results.write_text(json.dumps({"variants": {"vanilla": wrong}}))
        refused(lambda: read_cells(tmp_path), "results.json", "vanilla")
    results.write_bytes(content)
    refused(lambda: read_cells(tmp_path), "results.json")


LINE = {
    **{"split": "forget", "modality": "qa", "task": "classification", "answer": "baker"},
    **{"options": ["smith", "baker"], "response": "a smith", "scores": [-2.0, -1.0]},
}
WRONG_LINES = [
    *(BROKEN[kind].replace(b"\n", b"") for kind in ("cut off", "binary", "a list", "a number")),
    *(BROKEN[kind] for kind in ("null", "NaN", "deep", "Latin-1", "zeros")),
    *(
        json.dumps(LINE | wrong).encode()
        for wrong in (
            *({"task": 3}, {"answer": None}, {"response": ["a"]}, {"options": "smith"}),
            *({"options": [1, 2]}, {"scores": "high"}, {"scores": ["a"]}, {"scores": [None, 1]}),
            *({"modality": {}}, {"split": 1}, {"person": 5}, {"correct": "yes"}),
        )
    ),
]


@pytest.mark.parametrize("line", WRONG_LINES, ids=range(len(WRONG_LINES)))
def test_a_line_of_predictions(tmp_path, line):
    folder = tmp_path / "predictions"
    folder.mkdir()
    path = folder / "before-forget.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b"\n" + line + b"\n")
    refused(lambda: read_predictions(path), "before-forget.jsonl, line 2", "restore it")
    (tmp_path / "results.json").write_text(json.dumps({"before": scores()}))
    refused(lambda: rescore.run(Session(CONFIG, tmp_path)), "before-forget.jsonl, line 2")


def test_predictions_that_are_not_of_all_questions(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/before-forget.jsonl").write_text(json.dumps(LINE) + "\n")
    questions: Any = {"forget": [None, None]}
    answerer: Any = None
    refused(
        lambda: evaluate(tmp_path, "before", None, answerer, questions),
        *("before-forget.jsonl", "has 1 lines for 2 questions", "remove it"),
    )


WRONG_METRICS = [
    *(BROKEN[kind].replace(b"\n", b"") for kind in ("cut off", "binary", "a list", "a number")),
    *(BROKEN[kind] for kind in ("null", "NaN", "deep", "Latin-1", "zeros")),
    b'{"stage": 1, "step": 1}',
    b'{"step": 1, "loss": 1}',
    b'{"stage": "unlearn", "loss": 1}',
    b'{"stage": "unlearn", "step": null}',
    b'{"stage": "unlearn", "step": "1"}',
    b'{"stage": "unlearn", "step": 1, "loss": "low"}',
    b'{"stage": "unlearn", "step": 1, "loss": [1]}',
]


@pytest.mark.parametrize("line", WRONG_METRICS, ids=range(len(WRONG_METRICS)))
def test_a_line_of_metrics(tmp_path, line):
    good = b'{"stage": "unlearn", "step": 1, "forget_loss": 1.5}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + b"\n")
    for act in (
        lambda: read_metrics(tmp_path),
        lambda: Metrics(tmp_path, "unlearn", total=1),
        lambda: charts(tmp_path),
    ):
        refused(act, "metrics.jsonl, line 2", "remove the line")


def test_curves_leave_out_a_line_that_was_being_written(tmp_path):
    lines = [{"stage": "unlearn", "step": n, "forget_loss": v} for n, v in enumerate((1, 2))]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"stage": "unl')
    assert len(charts(tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "1", "[1]", '{"looks": [{}], "matched": {}}', "null", "\0" * 9),
        '{"looks": [{"iteration": "1"}], "matched": {}}',
    ],
)
def test_looks_of_a_comparison(tmp_path, text):
    path = tmp_path / "ga-0.1.json"
    path.write_text(text)
    refused(lambda: _read(path), "ga-0.1.json", "remove it")


@pytest.mark.parametrize("name", ["results.json", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(Path("/dev/zero"))
    read = {
        "results.json": lambda: read_results(tmp_path),
        "config.json": lambda: main.check_workdir(CONFIG, tmp_path),
        "metrics.jsonl": lambda: read_metrics(tmp_path),
    }
    refused(read[name], name)
