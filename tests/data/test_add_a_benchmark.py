"""The benchmark of docs/add-a-benchmark.md, as it stands there: recognised, read, asked, shown."""

import io
import json
import re
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import BENCHMARKS, open_benchmark
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.kinds import entry
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report
from mmunlearner_jax.stages.evaluate import evaluate, write_scores
from tests.helpers.page import Page

ROOT = Path(__file__).parents[2]
CITIES = {"Dome": "Florence", "Arch": "St. Louis", "Gate": "Berlin", "Tower": "Pisa"}


@pytest.fixture
def landmarks(monkeypatch):
    """The record of the page, registered for one test."""
    page = (ROOT / "docs/add-a-benchmark.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("landmarks")
    monkeypatch.setitem(sys.modules, "landmarks", module)
    exec(compile(code, "docs/add-a-benchmark.md", "exec"), module.__dict__)
    monkeypatch.setitem(BENCHMARKS, "landmarks", module.LANDMARKS)
    return module


@pytest.fixture
def workdir(landmarks, tmp_path):
    """A run's workdir with a copy of four landmarks, of which one is to be forgotten."""
    rows = []
    for shade, (name, city) in enumerate(CITIES.items()):
        buffer = io.BytesIO()
        Image.new("RGB", (12, 12), (60 * shade, 90, 120)).save(buffer, "png")
        wrong = [other for other in CITIES.values() if other != city]
        image = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"image": image, "name": name, "city": city, "wrong": wrong})
    for config, part in {"landmarks": rows, "gone_25": rows[:1], "left_75": rows[1:]}.items():
        (tmp_path / "benchmark" / config).mkdir(parents=True)
        table = pa.Table.from_pylist(part, landmarks.SCHEMA)
        pq.write_table(table, tmp_path / "benchmark" / config / "train.parquet")
    return tmp_path


@pytest.fixture
def config():
    return Config().with_values({"stages": ("evaluate", "report"), "data.forget_ratio": 25})


class Parrot:
    """Answers right, but for what a split makes it forget."""

    def answer(self, params, questions, *, split, label, after_batch):
        right = label == "before" or split != "forget"
        return [
            scored(
                {
                    "split": split,
                    "person": question.person,
                    "image": fingerprint(question.image),
                    "modality": question.modality,
                    "task": question.task,
                    "question": question.question,
                    "answer": question.answer,
                    "options": list(question.options),
                    "letters": question.letter,
                    "response": question.letter if right else "Nowhere",
                    "scores": [float((x == question.answer) == right) for x in question.options],
                }
            )
            for question in questions
        ]


class Chat:
    """Renders a turn as `Encoder.prompt` does."""

    def prompt(self, said, images):
        return f"{'<image>' * images}{said}"


def run(config, workdir):
    bench = open_benchmark(workdir / "benchmark", config.data, config.seed)
    questions = scored_questions(config.evaluate, bench, *bench.split(config.data.forget_ratio))
    for label in ("before", "after"):
        write_scores("strict", workdir, label, evaluate(workdir, label, None, Parrot(), questions))
    update_results(workdir, "kinds", entry(bench.record.kinds))
    update_results(workdir, "seed", 0)
    return bench, questions


def test_it_is_recognised_read_asked_scored_and_shown(landmarks, config, workdir):
    bench, questions = run(config, workdir)
    assert isinstance(bench, landmarks.LandmarkBench)
    assert [lesson.answer for lesson in bench.training("gone_25")] == ["It stands in Florence."]
    prompt = protocol("strict", bench.record, Chat(), "llava").prompt  # pyright: ignore[reportArgumentType]
    assert prompt(questions["forget"][0]) == (
        "<image>Where does this building stand?\nA) Berlin\nB) Florence\nC) Pisa\nD) St. Louis"
    )
    report.run(Session(config, workdir))
    page = Page((workdir / "report.html").read_text())
    assert "Forgotten buildings" in page.text and "Other buildings" in page.text
    assert "forget VQA" in page.text and "others VQA" in page.text


def test_it_has_no_demonstrations(landmarks, config, workdir):
    bench = open_benchmark(workdir / "benchmark", config.data, config.seed)
    config = config.with_values({"evaluate.shots": 1})
    with pytest.raises(InputError, match="shots: Landmarks has no few-shot setting; give 0"):
        scored_questions(config.evaluate, bench, *bench.split(25))


def test_a_split_that_no_record_knows_is_shown_under_its_own_name(landmarks, config, workdir):
    run(config, workdir)
    results = read_results(workdir)
    results["kinds"] = {"forget/vqa": {"label": "Forgotten buildings", "falls": True}}
    (workdir / "results.json").write_text(json.dumps(results))
    report.run(Session(config, workdir))
    text = Page((workdir / "report.html").read_text()).text
    assert "Others, pictures" in text and "others VQA" in text


def test_other_folders_are_named(landmarks, config, tmp_path):
    with pytest.raises(InputError, match="landmarks .Landmarks.; name the folder of one"):
        open_benchmark(tmp_path, config.data, 0)
