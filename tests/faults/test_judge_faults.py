"""An endpoint that answers as none should: one line, in bounded time, and no secret anywhere."""

import base64
import gzip
import json
import time

import pytest

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation import judge
from tests.helpers.judging import Handler, local_judge, says, write_predictions

KEY = 'sk-Secret/"7'
USER = "anna:pass%2Fword"


@pytest.fixture
def stub():
    with local_judge() as server:
        yield server


@pytest.fixture
def workdir(tmp_path):
    write_predictions(tmp_path)
    return tmp_path


def asker(stub, user=f"{USER}@", query="", **options):
    address = stub.endpoint.replace("//", f"//{user}") + query
    options = {"pause": 0.001, "attempts": 2, "timeout": 20, **options}
    return judge.Judge(address, "m", KEY, **options)


def error_of(stub, **options):
    with pytest.raises(InputError) as error:
        asker(stub, **options).ask("q", "a", "r")
    said = str(error.value)
    assert said.isprintable() and len(said) <= 600
    return said


def escaped(text, form):
    return "".join(form.format(ord(c)) for c in text)


ECHOES = {
    "plain": KEY,
    "upper case": KEY.upper(),
    "lower case": KEY.lower(),
    "as JSON": json.dumps(KEY)[1:-1],
    "as JSON, all of it": escaped(KEY, "\\u{:04x}"),
    "as JSON, twice": escaped(KEY, "\\\\u{:04x}"),
    "some of it as JSON": KEY[:4] + escaped(KEY[4:], "\\u{:04X}"),
    "in a URL": escaped(KEY, "%{:02x}"),
    "in HTML": escaped(KEY, "&#{};"),
    "in HTML, hexadecimal": escaped(KEY, "&#x{:X};"),
    "over lines": "\n ".join(KEY),
    "as sent": f"Bearer {KEY}",
    "user": "anna",
    "password": "PASS/word",
    "password in a URL": "pass%2fword",
    "both as sent": base64.b64encode(b"anna:pass/word").decode(),
    "of the query": "token-77",
}
SECRETS = [s.casefold() for s in (KEY, "anna", "pass/word", "token-77", ECHOES["both as sent"])]


def assert_none_is_in(text):
    bare = text.replace("\\", "").casefold()
    for secret in SECRETS:
        assert secret.replace("\\", "") not in bare
    for echo in ECHOES.values():
        assert echo not in text


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_no_secret_that_a_reply_echoes_is_shown_or_stored(stub, workdir, echo):
    # As in "https://anna:...@host/v1?key=token-77"; the server says it back wherever it can.
    options = {"query": "?key=token-77"}
    stub.script = [(401, {"X-Echo": "anna", "WWW-Authenticate": "anna"}, f"no entry: {echo}!")]
    said = error_of(stub, **options)
    assert "no entry: ***" in said or "Bearer ***" in said
    assert_none_is_in(said)
    stub.script = [says(f"Who is {echo}?\nFactuality Score: 8")]
    judge.grade(workdir, "after", asker(stub, **options))
    for path in workdir.rglob("judge/*"):
        for line in map(json.loads, path.read_text().splitlines()):
            assert line["grade"] == 8 and "***" in line["reply"]
            assert_none_is_in(line["reply"])
    assert {asked[0] for asked in stub.asked} == {"/v1/chat/completions?key=token-77"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("anna:pass/word@host/v1", "--endpoint=...: begin it with https:// or http://"),
        ("host/v1?key=token-77", "--endpoint=...: begin it"),
        ("ftp://host/v1", "--endpoint=ftp://host/v1: begin it"),
        ("http://anna:pass/word@host/v1", "--endpoint=...: is no address"),
        (
            "http://host:99999999/v1",
            "--endpoint=http://host:99999999/v1: has no host, or a port above",
        ),
        ("http://host:abc/v1", "is no address"),
        ("http://[::1/v1", "is no address"),
        ("http://ho\x1b[31mst/v1", "is no address"),
        ("http://\udcff/v1", "is no address"),
        ("http://a..b/v1", "is no address"),
        (f"http://{'a' * 64}.org/v1", "is no address"),
        (f"http://host/{'a' * 99999}", "is no address"),
        ("http://\u200b/v1", "is no address"),
        ("http://", "has no host"),
        ("https:///v1", "has no host"),
        ("https://anna:pass%2Fword@/v1", "has no host"),
    ],
)
def test_an_endpoint_that_is_none_is_one_line(address, said):
    with pytest.raises(InputError) as error:
        judge.Judge(address, "m", KEY)
    assert said in str(error.value) and str(error.value).isprintable()
    assert_none_is_in(str(error.value))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '"text"',
        "{",
        '{"choices": {"0": 1}}',
        '{"choices": [{"message": "text"}]}',
        '{"choices": [{"message": {"content": [{"type": "text", "text": "8"}]}}]}',
        '{"choices": [{"message": {"content": 8}}]}',
        '{"choices": [{"message": {"content": false}}]}',
        '{"choices": [{"message": {"content": "8"}}], "usage": NaN}',
        '{"choices": [{"message": {"content": "8"}}], "n": ' + "9" * 9999 + "}",
        "[" * 100_000,
        "\x00\ufeff{}",
    ],
    ids=range(14),
)
def test_a_reply_of_another_form_is_one_line(stub, body):
    stub.script = [(200, {}, body)]
    assert "the reply has no choices[0].message.content; check --endpoint" in error_of(stub)


@pytest.mark.parametrize(
    ("content", "grade"),
    [
        (None, None),
        ("\ud83d half\nFactuality Score: 4", 4),
        ("\x1b[31m\x00Factuality Score: 4", 4),
        (f"Factuality Score: {'9' * 9999}", None),
        (f"Factuality Score: {'9' * 9999}\nFactuality Score: 5", 5),
        ("Factuality Score: \u0667", None),
        ("Factuality Score: \u00b2", None),
        ("Factuality Score" * 50_000, None),
        ("Factuality Score:" * 50_000, None),
    ],
    ids=range(9),
)
def test_odd_text_is_graded_or_not_and_stored(stub, workdir, content, grade):
    begin = time.monotonic()
    stub.script = [says(content)] * 3 + [says("Factuality Score: 6")]
    reply = asker(stub).ask("\ud83d?", "NaN", "\x00")
    assert judge.parse_score(reply) == grade
    stub.script = [says(content), says("Factuality Score: 6")]
    judge.grade(workdir, "after", asker(stub))
    judge.grade(workdir, "after", asker(stub))  # what was stored is read
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    "after",
    ["\u00b2", "9" * 400, "-5", "1e9", "nan", "inf", "Wed, 21 Oct 2099 07:28:00 GMT", "0x10"],
)
def test_a_wait_that_is_asked_for_is_a_few_digits_or_ignored(stub, monkeypatch, after):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    stub.script = [(503, {"Retry-After": after}, "busy")]
    assert "status 503 busy" in error_of(stub)
    assert slept == [60.0 if after.isdigit() and after.isascii() else 0.001]


class Raw(Handler):
    """Writes what it is told to, byte for byte, in parts and pauses."""

    parts, pause = (), 0.0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = True
        try:
            for part in self.parts:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(self.pause)
        except OSError:  # it went away, as it should
            pass


HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = json.dumps(says("Factuality Score: 3")[2]).encode()
BOMB = gzip.compress(b'{"choices": "' + b" " * 50_000_000)


def floods():
    yield HEAD + b"\r\n"
    while True:
        yield b" " * 65536


@pytest.mark.parametrize(
    ("parts", "pause", "said"),
    [
        (lambda: (HEAD + b"\r\n", *[b" "] * 600), 0.02, "TimeoutError"),
        (lambda: (HEAD + b"X: ", *[b"x"] * 600), 0.02, "TimeoutError"),
        (lambda: (*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 600,), 0.02, "TimeoutError"),
        (lambda: (HEAD + b"Content-Length: 9\r\n\r\n", b"", b""), 2, "TimeoutError"),
        (lambda: floods(), 0, "more than 1,048,576 bytes"),
        (
            lambda: (HEAD + b"Content-Length: 99999999999999\r\n\r\n", *[b" " * 65536] * 40),
            0,
            "more",
        ),
        (lambda: (HEAD + b"Content-Encoding: gzip\r\n\r\n" + BOMB,), 0, "the reply has no choices"),
        (lambda: (b"SSH-2.0-OpenSSH_9.6\r\n",), 0, "ProtocolError"),
        (lambda: (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), 0, "ProtocolError"),
        (lambda: (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), 0, "ProtocolError"),
        (lambda: (HEAD + b"X: " + b"x" * 200_000,), 0, "ProtocolError"),
        (lambda: (b"",), 0, "Error"),
    ],
    ids=["body", "headers", "100", "silence", "flood", "length", "gzip", "ssh", "a", "b", "c", "0"],
)
def test_a_server_that_drips_floods_or_talks_nonsense_ends(stub, parts, pause, said):
    class It(Raw):
        pass

    It.parts, It.pause = parts(), pause
    stub.RequestHandlerClass = It
    begin = time.monotonic()
    assert said in error_of(stub, timeout=0.5 if pause else 20, attempts=1)
    assert time.monotonic() - begin < 10


def test_what_is_read_in_time_is_read_whole(stub):
    class It(Raw):
        parts, pause = (HEAD + b"\r\n", GOOD[:20], GOOD[20:]), 0.05

    stub.RequestHandlerClass = It
    assert asker(stub).ask("q", "a", "r") == "Factuality Score: 3"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTP_PROXY", "socks9://anna:pass/word@nowhere:1"),
        ("HTTP_PROXY", "http://anna:pass/word@[::1"),
    ],
)
def test_what_the_environment_says_is_one_line(stub, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NO_PROXY", "")
    said = error_of(stub)
    assert "the request cannot be sent" in said
    assert_none_is_in(said)


FIELDS = ("split", "modality", "question", "answer", "response")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 1: TypeError"),
        ('{"task": "generation"}', "line 1: ValueError .has no answer, modality"),
        (
            json.dumps(dict.fromkeys(FIELDS, 1) | {"task": "generation"}),
            "line 1: TypeError .split is int, not str",
        ),
    ],
)
def test_predictions_that_are_damaged_are_named(stub, workdir, line, said):
    (workdir / "predictions/after-forget.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=said):
        judge.grade(workdir, "after", asker(stub))


@pytest.mark.parametrize("grade", ["11", "0", "true", '"x"', "[]", "1e400", "NaN"])
def test_grades_that_are_damaged_are_named(stub, workdir, grade):
    (workdir / "judge").mkdir()
    text = f'{{"model": "m", "question": "", "answer": "", "response": "", "grade": {grade}}}\n'
    (workdir / "judge/after-forget.jsonl").write_text(text)
    with pytest.raises(InputError, match="judge/after-forget.jsonl, line 1: .*; remove the line"):
        judge.grade(workdir, "after", asker(stub))


def test_a_folder_that_cannot_be_written_is_one_line(stub, workdir):
    (workdir / "judge").touch()
    with pytest.raises(InputError, match="judge: FileExistsError: .*; make it writable, then"):
        judge.grade(workdir, "after", asker(stub))
