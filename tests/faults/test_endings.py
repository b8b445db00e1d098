"""Signals, and streams that take nothing: a program ends with one line and the right status."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Everything that takes long is imported once; each program then has its own process, whose number
# and status are told.
SERVER = """
import json, os, sys
import rich.console, tqdm
import mmunlearner_jax.command_line, mmunlearner_jax.preemption
for line in sys.stdin:
    program, arguments, streams, encoding = json.loads(line)
    if not (child := os.fork()):
        sys.argv[1:] = arguments
        for number, (name, place) in enumerate(streams.items(), start=1):
            if place:
                getattr(sys, name).reconfigure(encoding=encoding)
                if place.endswith("/left"):  # a pipe whose reader has gone
                    reader, file = os.pipe()
                    os.close(reader)
                else:
                    file = os.open(place, os.O_WRONLY | os.O_CREAT)
                os.dup2(file, number)
            else:
                setattr(sys, name, None), os.close(number)
        exec(program)
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# The end of `main`, without the minutes before it.
PROGRAM = """
import sys, time
from absl import app
from mmunlearner_jax import command_line, preemption

def main(_):
    try:
        try:
            preemption.watch()
            if "loop" in sys.argv:
                with preemption.saved_by_loop():
                    print("ready", flush=True)
                    for _ in range(3000):
                        time.sleep(0.01)
                        if preemption.due():
                            break
                    time.sleep(0.5)  # it saves
                    print("saved", flush=True)
            print("ready", flush=True)
            time.sleep(30)
        finally:
            preemption.over()
    except preemption.Preempted:
        preemption.leave()

command_line.steady_streams()
app.run(main, argv=[""])
"""
TERM, INT = signal.SIGTERM, signal.SIGINT
LINE = "run the same command again to go on"

STREAMS = """
import sys, threading
from absl import logging
from rich.console import Console
from tqdm import tqdm
from mmunlearner_jax.command_line import quiet_libraries, refuse_lost_output, steady_streams
from mmunlearner_jax.errors import InputError
steady_streams()
quiet_libraries()
for stream in (sys.stdout, sys.stderr):
    for _ in tqdm(range(3), file=stream, desc="bär"):
        print("漢字 \\u2192 \\u202e", file=stream, flush=True)
Console().print("漢字 ± −")
try:
    raise OSError("what a library logs")
except OSError as error:
    logging.error("it failed", exc_info=error)
thread = threading.Thread(target=lambda: [][0])
thread.start()
thread.join()
print("漢字" * 100_000)
open(sys.argv[1], "w").write("done")
if "asks" in sys.argv:
    refuse_lost_output()
"""


@pytest.fixture(scope="module")
def server():
    root = str(Path(__file__).parents[2])
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        **{"stdin": pipe, "stdout": pipe, "text": True},
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": root},
    ) as process:
        assert process.stdin
        yield process
        process.stdin.close()


@pytest.fixture
def start(server, tmp_path):
    """Starts a program; its number."""

    def begin(program, *arguments, out="out", err="err", encoding="utf-8"):
        places = (place and str(tmp_path / place) for place in (out, err))
        streams = dict(zip(("stdout", "stderr"), places, strict=True))
        server.stdin.write(json.dumps([program, arguments, streams, encoding]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    return begin


@pytest.fixture
def signalled(server, start, tmp_path):
    def run(*signals: signal.Signals, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        process = start(PROGRAM, *arguments)
        while not (tmp_path / "out").exists() or (tmp_path / "out").read_text() != "ready\n":
            time.sleep(0.01)
            assert server.poll() is None
        for number in signals:
            os.kill(process, number)
            time.sleep(0.02)
        code = int(server.stdout.readline())
        out, err = ((tmp_path / name).read_text() for name in ("out", "err"))
        assert "Traceback" not in err and "Fatal" not in err
        return code, out, err

    return run


@pytest.mark.parametrize("signals", [(TERM,) * 5, (INT,), (TERM, INT)], ids=str)
def test_a_run_that_is_asked_to_end(signalled, signals):
    code, _, err = signalled(*signals)
    assert code in {128 + number for number in signals}
    assert LINE in err


@pytest.mark.parametrize("signals", [(TERM, TERM), (INT,)], ids=str)
def test_a_loop_saves_first(signalled, signals):
    code, out, err = signalled(*signals, arguments=("loop",))
    assert code == 128 + signals[0]
    assert out == "ready\nsaved\n" and LINE in err


def test_ctrl_c_twice_ends_at_once(signalled):
    code, out, err = signalled(INT, TERM, INT, arguments=("loop",))
    assert code == 128 + INT
    assert out == "ready\n" and LINE in err


@pytest.fixture
def printed(server, start, tmp_path):
    def run(*arguments: str, **streams: str | None) -> tuple[int, bytes]:
        start(STREAMS, str(tmp_path / "done"), *arguments, **streams)
        code = int(server.stdout.readline())
        assert (tmp_path / "done").read_text() == "done"
        said = (tmp_path / "err").read_bytes() if (tmp_path / "err").exists() else b""
        assert b"Traceback" not in said
        return code, said

    return run


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize(
    "streams",
    [
        {},
        {"out": "/dev/full"},
        {"out": "/dev/full", "err": "/dev/full"},
        {"out": "", "err": ""},
        {"err": ""},
    ],
    ids=str,
)
def test_a_stream_that_takes_nothing_ends_no_run(printed, streams, encoding):
    code, _ = printed(**streams, encoding=encoding)
    assert code == 0


def test_a_reader_may_leave(printed):
    code, _ = printed("asks", out="left")
    assert code == 0


def test_a_program_that_only_prints_says_that_it_could_not(printed):
    code, said = printed("asks", out="/dev/full")
    assert code == 1
    assert said.endswith(b"standard output: No space left on device; send it somewhere else\n")
