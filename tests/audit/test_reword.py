"""Rewordings by a chat model, against a local server; nothing leaves this machine."""

import json

import pytest

from mmunlearner_jax.audit import reword
from mmunlearner_jax.audit.attacks.paraphrases import reworded
from mmunlearner_jax.errors import InputError
from tests.helpers.judging import KEY, local_judge, says

LINES = [f"Wording {n}?" for n in range(5)]


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with local_judge() as server:
        server.script = [says("\n".join(LINES))]
        yield server


@pytest.fixture
def workdir(tmp_path):
    asked = [("forget", "vqa", "Who?"), ("forget", "qa", "Written?"), ("retain", "vqa", "Other?")]
    asked += [("forget", "vqa", "Where?"), ("forget", "vqa", "Who?")]
    common = {"task": "classification", "person": "p", "answer": "a", "response": "b"}
    lines = [{"split": s, "modality": m, "question": q, **common} for s, m, q in asked]
    lines.append({**lines[0], "task": "cloze", "question": "The city is __."})
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "before-forget.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return tmp_path


def run(stub, workdir):
    out = workdir / "words.json"
    flags = [f"--workdir={workdir}", f"--endpoint={stub.endpoint}", "--model=m", f"--out={out}"]
    reword.main(flags)
    return out


def test_questions_about_pictures_to_forget_are_reworded_once(stub, workdir):
    out = run(stub, workdir)
    assert json.loads(out.read_text()) == {"Who?": LINES, "Where?": LINES}
    assert [body["messages"][1]["content"] for _, _, body in stub.asked] == ["Who?", "Where?"]
    assert stub.asked[0][1] == f"Bearer {KEY}"
    run(stub, workdir)
    assert len(stub.asked) == 2
    assert reworded(["Who?", "Where?"], str(out)) == {"Who?": LINES, "Where?": LINES}


def test_a_reply_that_is_cut_short_is_an_error_and_what_was_said_is_kept(stub, workdir):
    stub.script = [says("\n".join(LINES)), says("1. Only one?")]
    with pytest.raises(InputError, match=r"'Where\?' has 1 rewordings, and 5 are needed"):
        run(stub, workdir)
    assert json.loads((workdir / "words.json").read_text()) == {"Who?": LINES}


def test_numbers_bullets_headings_and_the_question_itself_are_left_out():
    reply = (
        'Here are five:\n1. "Who is it?"\n2) Who?\n- Name them?\n\n\u2022 Name them?\n3: 2 people?'
    )
    assert reword.rewordings(reply, "Who?") == ["Who is it?", "Name them?", "2 people?"]


def test_there_must_be_questions(stub, tmp_path):
    with pytest.raises(InputError, match="no question about pictures to forget"):
        run(stub, tmp_path)
