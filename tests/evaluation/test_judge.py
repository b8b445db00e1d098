"""The judge against a local server that says what it is told to; nothing leaves this machine."""

import json
import os
import subprocess
import sys

import pytest

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation import judge
from mmunlearner_jax.evaluation.scores import mean_score
from tests.helpers.judging import KEY, local_judge, says, write_predictions


@pytest.fixture
def asker(stub):
    """Makes a judge that does not wait long."""
    return lambda model="m": judge.Judge(stub.endpoint, model, KEY, pause=0.001, attempts=3)


@pytest.fixture
def stub():
    with local_judge() as server:
        yield server


@pytest.fixture
def workdir(tmp_path):
    write_predictions(tmp_path)
    return tmp_path


def judged(workdir):
    text = (workdir / "judge/after-forget.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Fine.\nFactuality Score: 7", 7),
        ("**Factuality Score:** 10/10", 10),
        ("factuality score (1-10): 3.", 3),
        ("Not 'Factuality Score: 9', as it asks for.\nFactuality Score: 2", 2),
        ("Factuality Score: 7.5", None),
        ("Factuality Score: 0", None),
        ("Factuality Score: 11", None),
        ("Factuality Score: N\n8", None),
        ("8", None),
        ("", None),
    ],
)
def test_mllmu_score_of_a_reply(reply, score):
    assert judge.parse_score(reply) == score


def test_mllmu_answers_are_graded_by_split_and_modality(stub, workdir, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub.script = [says(f"So.\nFactuality Score: {n}") for n in (2, 9, 5)]
    (workdir / "results.json").write_text('{"seed": 0, "judge": {"before": {}}}')
    judge.main([f"--workdir={workdir}", f"--endpoint={stub.endpoint}/", "--model=m"])
    results = json.loads((workdir / "results.json").read_text())
    scores = {
        "vqa": {"factuality": {**mean_score([2, 9]), "unread": 0}},
        "qa": {"factuality": {**mean_score([5]), "unread": 0}},
    }
    assert results == {"seed": 0, "judge": {"before": {}, "after": {"m": {"forget": scores}}}}
    assert {(path, key) for path, key, _ in stub.asked} == {
        ("/v1/chat/completions", f"Bearer {KEY}")
    }
    bodies = [body for _, _, body in stub.asked]
    assert {body["model"] for body in bodies} == {"m"}
    for i, body in enumerate(bodies):
        system, user = body["messages"]
        assert system["content"] == judge.RUBRIC
        assert all(s in user["content"] for s in (f"Question {i}?", "a baker", f"answer {i}"))
    written = [path.read_text() for path in workdir.rglob("*.json*")]
    assert not any(KEY in text for text in written)


def test_a_reply_without_a_score_is_counted_and_asked_again_next_time(stub, workdir, asker):
    stub.script = [says("I would not say."), says("Factuality Score: 6")]
    cells = judge.grade(workdir, "after", asker())["forget"]
    assert cells["vqa"]["factuality"] == {**mean_score([6]), "unread": 1}
    assert [x["grade"] for x in judged(workdir)] == [None, 6, 6]
    assert judged(workdir)[0]["reply"] == "I would not say."
    cells = judge.grade(workdir, "after", asker())["forget"]
    assert cells["vqa"]["factuality"] == {**mean_score([6, 6]), "unread": 0}
    assert len(stub.asked) == 4


def test_no_score_at_all_is_an_error(stub, workdir, asker):
    stub.script = [says("No.")]
    with pytest.raises(InputError, match="no reply for forget/vqa has a line .*another --model"):
        judge.grade(workdir, "after", asker())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(stub, workdir, asker, status):
    busy = (status, {"Retry-After": "0"}, "busy")
    stub.script = [busy, (status, {}, "busy"), says("Factuality Score: 4")]
    cells = judge.grade(workdir, "after", asker())["forget"]
    assert cells["vqa"]["factuality"]["value"] == 4
    assert len(stub.asked) == 5


@pytest.mark.parametrize(
    ("reply", "asked", "said"),
    [
        ((429, {}, "busy"), 3, "status 429 busy; check"),
        ((404, {}, f"no model\n for {KEY}"), 1, r"status 404 no model for \*\*\*; check"),
        ((302, {"Location": "/elsewhere"}, ""), 1, "status 302; check"),
        ((200, {}, {"choices": []}), 1, r"no choices\[0\].message.content; check"),
        ((200, {}, "<html>"), 1, r"no choices\[0\].message.content; check"),
    ],
)
def test_an_endpoint_that_fails_is_one_line(stub, workdir, asker, reply, asked, said):
    stub.script = [reply]
    with pytest.raises(InputError, match=said) as error:
        judge.grade(workdir, "after", asker())
    assert KEY not in str(error.value) and "\n" not in str(error.value)
    assert len(stub.asked) == asked


def test_an_endpoint_out_of_reach_is_tried_again_and_named(workdir):
    nowhere = judge.Judge("http://127.0.0.1:9", "m", KEY, pause=0.001, attempts=2)
    with pytest.raises(InputError, match="127.0.0.1:9/chat/completions: ConnectError; check"):
        nowhere.ask("q", "a", "r")


def test_what_is_graded_is_not_asked_again(stub, workdir, asker):
    stub.script = [says("Factuality Score: 8"), (400, {}, "stop")]
    with pytest.raises(InputError, match="status 400"):
        judge.grade(workdir, "after", asker())
    assert len(judged(workdir)) == 1
    stub.script = [says("Factuality Score: 3")]
    scores = judge.grade(workdir, "after", asker())
    assert scores["forget"]["vqa"]["factuality"]["value"] == 5.5
    assert len(stub.asked) == 4
    assert judge.grade(workdir, "after", asker()) == scores
    assert len(stub.asked) == 4
    judge.grade(workdir, "after", asker(model="other"))
    assert len(stub.asked) == 7


def test_there_must_be_answers(stub, workdir, asker):
    with pytest.raises(InputError, match="predictions: no open answers of 'before'; run"):
        judge.grade(workdir, "before", asker())


def test_a_missing_key_is_one_line(workdir):
    flags = [f"--workdir={workdir}", "--endpoint=http://127.0.0.1:9/v1", "--model=m"]
    env = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    command = [sys.executable, "-m", "mmunlearner_jax.evaluation.judge", *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: OPENAI_API_KEY: is unset")
    assert done.stderr.count("\n") == 1


def test_flags_are_checked(workdir, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(InputError, match="--endpoint=host/v1: begin it with https://"):
        judge.main([f"--workdir={workdir}", "--endpoint=host/v1", "--model=m"])
    with pytest.raises(SystemExit, match="error: the following arguments are required: --model"):
        judge.main([f"--workdir={workdir}", "--endpoint=https://host/v1"])


def test_without_its_extra_the_judge_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mmunlearner_jax.evaluation.endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(InputError, match=r"httpx2: .* pip install 'mmunlearner_jax\[judge\]'"):
        judge.Judge("https://host/v1", "grader", KEY)
