"""Launchers with variables and arguments that no one should give: nothing runs, one line."""

import os
import signal
import subprocess

import pytest

from tests.helpers.launchers import GKE, LAUNCH, TPU, dry, launch

HUGE = "9" * 20
NO_NUMBERS = [
    "UID[$(touch ran)]",
    "a[$(touch ran)0]",
    "x=1",
    "1+1",
    "-1",
    "1.5",
    HUGE,
    "1 2",
    "1\n",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder in which nothing may appear."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())


def refused(script, *arguments, named, **variables):
    done = launch(script, *arguments, **variables)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {named} is ") and len(line) < 300 and line.isprintable()


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    ("script", "action", "given", "name"),
    [
        ("tpu_vm.sh", "all", TPU, "TRIES"),
        ("tpu_vm.sh", "all", TPU, "LOOK_EVERY"),
        ("tpu_vm.sh", "all", TPU, "SPOT"),
        ("gke_xpk.sh", "run", GKE, "RESTARTS"),
        ("local.sh", "2", {}, "PORT"),
        ("local.sh", "2", {}, "DEVICES"),
    ],
)
def test_what_is_no_number_is_not_evaluated(script, action, given, name, value):
    for arguments in ((action,), ("--dry-run", action)):
        refused(script, *arguments, named=name, **given | {name: value})


@pytest.mark.parametrize(
    "value", ["-f", "--help", "a b", "a;b", "a,b", "a\n", "$(touch ran)", "\x1b"]
)
@pytest.mark.parametrize(
    ("script", "action", "given"), [("tpu_vm.sh", "delete", TPU), ("gke_xpk.sh", "logs", GKE)]
)
def test_a_name_is_no_option(script, action, given, value):
    refused(script, action, named="NAME", **given | {"NAME": value})


def test_a_config_is_no_option():
    refused("tpu_vm.sh", "install", named="CONFIG", **TPU | {"CONFIG": "-r/x.py"})


@pytest.mark.parametrize(
    "count", [*NO_NUMBERS, "", "0", "00", "007", "1000", "two", "-n", "\u00b2"]
)
def test_a_count_of_processes_is_one_to_999(count):
    for arguments in ((count,), ("--dry-run", count)):
        done = launch("local.sh", *arguments)
        assert done.returncode == 2 and not done.stdout and "launch/local.sh" in done.stderr


def test_a_dry_run_is_bounded_and_ends_when_it_is_told_to():
    assert len(dry("local.sh", "999", "--config=c.py")) == 999
    script = [str(LAUNCH / "local.sh"), "--dry-run", "999", "x" * 9999]
    with subprocess.Popen(script, stdout=subprocess.PIPE, env=os.environ) as running:
        assert running.stdout and running.stdout.read(1)  # and no more: the pipe is full
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=5) == -signal.SIGTERM


def test_arguments_are_shown_as_they_are_passed():
    (line,) = dry("local.sh", "1", "--workdir=a b", "*", "")
    assert line.endswith(r" --workdir=a\ b \* ''")


def test_no_arguments_are_none():
    (line,) = dry("gke_xpk.sh", "run", **GKE)
    assert line.endswith(r"--command=python3\ -m\ mmunlearner_jax.main\ --distributed=on")


@pytest.mark.parametrize(
    ("config", "copied", "told"),
    [
        ("configs/llava.py:ratio=5,checkpoint=a/b", "configs", "configs/llava.py:ratio=5"),
        ("their/configs/x.py:hf://a/b:c", "their/configs", "configs/x.py:hf://a/b:c"),
        ("/their/configs/x.py:", "/their/configs", "configs/x.py:"),
        ("x.py:a/b", ".", "./x.py:a/b"),
        ("a/-b/x.py", "a/-b", "-b/x.py"),
    ],
)
def test_a_slash_behind_the_colon_is_no_folder(config, copied, told):
    given = TPU | {"CONFIG": config}
    assert f"scp --recurse {copied} mmu:" in dry("tpu_vm.sh", "install", **given)[1]
    (run,) = dry("tpu_vm.sh", "run", **given)
    assert rf"--config={told}" in run.replace("\\", "")


@pytest.mark.parametrize(("value", "spot"), [("", False), ("0", False), ("1", True)])
def test_no_spot_is_no_spot(value, spot):
    (line,) = dry("tpu_vm.sh", "create", **TPU | {"SPOT": value})
    assert line.endswith("--spot") == spot
