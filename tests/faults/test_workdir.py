"""Names of workdirs, two runs in one, and where the system refuses."""

import contextlib
import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs import orl
from mmunlearner_jax import files, lock, main
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.store import Records
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import expanded, plain, system_fault, write_json, write_whole
from mmunlearner_jax.lock import LOCK, locked
from mmunlearner_jax.metrics import Metrics

WORK = [
    "a b",
    "h#sh",
    "100%",
    "%5B1%5D",
    "ünï 漢\u3000字",
    "-dash",
    "{b}",
    "~",
    "$HOME",
    "a'b\"c",
    "a;b&c|d",
    ".x",
]
REFUSED = [
    "run[1]",
    "a*b",
    "what?",
    "a\\b",
    "new\nline",
    "gs:",
    "s3:",
    "\x1b[31m",
    "bytes\udcff",
    "[",
    "a][",
]


@pytest.mark.parametrize("name", WORK)
def test_a_workdir_of_an_unusual_name(tmp_path, name):
    home = tmp_path / name
    state = {"w": jnp.arange(5.0)}
    with locked(plain(home)):
        save_tree(home / "tree", state)
        for _ in range(2):
            with Checkpoints(home / "steps", every=1) as saved:
                found, step = saved.restore(state, {})
                saved.save(step + 1, found, {})
        Records(home / "records").write([("a", np.arange(3))])
        with Metrics(home, "unlearn", total=1) as metrics:
            metrics.write(1, loss=1.0)
    assert load_tree(home / "tree", state)["w"].tolist() == state["w"].tolist()
    assert {path.name for path in (home / "steps").iterdir()} == {"1", "2"}
    assert "a" in Records(home / "records")
    assert len((home / "metrics.jsonl").read_text().splitlines()) == 1
    assert list((home / "tensorboard/unlearn").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_libraries_take_for_something_else(tmp_path, name):
    home = tmp_path / name / "run"
    config = orl.get_config()
    config.stages, config.mesh = (), (1, 1, -1)
    for act in (
        lambda: main.run(typed(config), home),
        lambda: save_tree(home / "tree", {}),
        lambda: Checkpoints(home / "steps", every=1),
    ):
        with pytest.raises(InputError, match="give a folder with another name$") as error:
            act()
        assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_nobody():
    with pytest.raises(InputError, match="~nobody-of-that-name/run: .*give the whole path"):
        expanded("~nobody-of-that-name/run")


HOLDER = """
import sys, time
from pathlib import Path
from mmunlearner_jax.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another(workdir: Path):
    line = [sys.executable, "-c", HOLDER, str(workdir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_runs_on_one_host(tmp_path):
    with another(tmp_path) as holder:
        begin = time.monotonic()
        with pytest.raises(InputError) as error, locked(tmp_path):
            pass
        assert time.monotonic() - begin < 2
        said = str(error.value)
        assert re.search(
            rf"{tmp_path}: is in use by process {holder.pid} on \S+ since 2\d{{3}}-", said
        )
        assert said.endswith("give another --workdir")
        holder.kill()
        holder.wait()
        with locked(tmp_path):  # at once: the process is gone
            pass
    assert list(tmp_path.iterdir()) == []


FOREIGN = "filelock/2\npid=1\nhost=another-host\nmode=lease\ntoken=0123\nduration=0.6\n"


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(lock, "LEASE", 0.6)


def test_a_run_of_another_host_that_is_alive(tmp_path, short):
    note = tmp_path / LOCK
    note.write_text(FOREIGN)
    over = threading.Event()

    def renew():
        while not over.wait(0.1):
            os.utime(note)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(InputError, match="in use by process 1 on another-host"),
            locked(tmp_path),
        ):
            pass
    finally:
        over.set()
        thread.join()
    assert note.read_text() == FOREIGN


def test_the_lease_of_another_host_ends(tmp_path, short, capsys):
    (tmp_path / LOCK).write_text(FOREIGN)
    with locked(tmp_path):
        pass
    assert "another-host" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file.*give another --workdir"), locked(tmp_path / "file"):
        pass


def test_an_error_lets_the_workdir_go(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_failed_may_be_mended(tmp_path):
    config = orl.get_config()
    config.stages, config.mesh = ("report",), (1, 1, -1)
    with pytest.raises(InputError, match="lacks 'before' or 'after'"):
        main.run(typed(config), tmp_path / "run")
    assert list(tmp_path.glob("run/*")) == []


REFUSALS = {
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "free some room",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EIO: "check the disk",
    errno.EMFILE: "ulimit -n",
    errno.ENOTDIR: "correct that",
}


@pytest.mark.parametrize(("number", "mend"), REFUSALS.items())
def test_what_the_system_refuses_is_one_line(number, mend):
    plain_one = OSError(number, os.strerror(number), "/data/run/file")
    caused = ValueError("what a library says")
    caused.__cause__ = plain_one
    meanwhile = RuntimeError("what came of it")
    meanwhile.__context__ = caused
    for error in (plain_one, caused, meanwhile, ExceptionGroup("several", [caused])):
        said = str(system_fault(error, Path("/data/run")))
        assert said.startswith(f"/data/run/file: {os.strerror(number)}; ") and mend in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_what_libraries_tell_in_words(number):
    error = ValueError(f'RESOURCE_EXHAUSTED: writing "x": {os.strerror(number)} [source ...]\nmore')
    said = str(system_fault(error, Path("/data/run")))
    assert said.startswith(f"/data/run: {os.strerror(number)}; ")


def test_a_mistake_of_ours_is_not_the_systems():
    assert system_fault(KeyError("name"), Path("run")) is None


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, when):
    path = tmp_path / "report.html"
    write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when == "write":
        path.with_name("report.html.partial").symlink_to("/dev/full")
    else:
        monkeypatch.setattr(files.os, when, full)
    with pytest.raises(OSError) as error:
        write_whole(path, "new" * 10**6)
    assert str(path) in str(system_fault(error.value, Path("elsewhere")))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_holds_no_number_that_is_none(tmp_path, value):
    with pytest.raises(ValueError):
        write_json(tmp_path / "results.json", {"value": value})
    assert list(tmp_path.iterdir()) == []
