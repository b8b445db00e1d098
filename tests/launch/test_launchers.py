"""What the launchers would do, word for word; and what they say where something is missing."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.launchers import GKE, LAUNCH, TPU, dry, launch


def test_local():
    common = "JAX_COORDINATOR_ADDRESS=127.0.0.1:29500 JAX_NUM_PROCESSES=2"
    program = "python3 -m mmunlearner_jax.main --distributed=on --config=c.py --workdir=w"
    assert dry("local.sh", "2", "--config=c.py", "--workdir=w") == [
        f"{common} JAX_PROCESS_ID={index} {program}" for index in range(2)
    ]


def test_local_ends_all_where_one_fails(tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\n[ "$JAX_PROCESS_ID" = 1 ] && exit 7\ntrap "" TERM\nexec sleep 60\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [str(LAUNCH / "local.sh"), "2"],
        env={"PATH": os.environ["PATH"], "PYTHON": str(fake)},
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7
    assert "ended with status 7, so the others are ended: run the same command" in done.stderr


def test_local_lets_processes_save_when_it_is_stopped(tmp_path):
    fake = tmp_path / "python"
    here = f"{tmp_path}/$JAX_PROCESS_ID"
    saves = f"sleep $JAX_PROCESS_ID; touch {here}.saved; exit 143"
    fake.write_text(f"#!/bin/sh\ntrap '{saves}' TERM\ntouch {here}\nwhile :; do sleep 0.1; done\n")
    fake.chmod(0o755)
    script = subprocess.Popen(
        [str(LAUNCH / "local.sh"), "2", "--workdir=w"],
        env={**os.environ, "PYTHON": str(fake)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not all((tmp_path / n).exists() for n in "01"):
        time.sleep(0.05)
        assert script.poll() is None
    script.terminate()
    _, said = script.communicate(timeout=30)
    assert script.returncode == 143 and not said
    assert all((tmp_path / f"{n}.saved").exists() for n in "01")


def test_tpu_vm():
    create, install, copy, run = dry(
        "tpu_vm.sh",
        "all",
        "--workdir=/mnt/a b",
        **TPU | {"SPOT": "1", "CONFIG": "their/configs/llava_mllmu.py:ratio=10"},
    )
    place = "mmu --zone=us-west4-a"
    assert create == (
        f"gcloud compute tpus tpu-vm create {place} --accelerator-type=v5litepod-16"
        " --version=v2-alpha-tpuv5-lite --spot"
    )
    assert install.startswith(f"gcloud compute tpus tpu-vm ssh {place} --worker=all --command=")
    assert run.startswith(f"gcloud compute tpus tpu-vm ssh {place} --worker=all --command=")
    assert copy == (
        "gcloud compute tpus tpu-vm scp --recurse their/configs mmu: --zone=us-west4-a --worker=all"
    )
    assert r"--distributed=on\ --config=configs/llava_mllmu.py:ratio=10\ --workdir" in run
    assert dry("tpu_vm.sh", "delete", PROJECT="p", **TPU) == [
        f"gcloud compute tpus tpu-vm delete {place} --project=p --quiet"
    ]


def test_a_run_that_was_stopped_is_not_taken_for_done(tmp_path):
    (tmp_path / "gcloud").write_text(
        '#!/bin/sh\necho "$@" >> "$CALLS"\n'
        'case "$*" in *mmunlearner_jax.main*) exit 143 ;; *state*) echo PREEMPTED ;; esac\n'
    )
    (tmp_path / "gcloud").chmod(0o755)
    calls = tmp_path / "calls"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = launch("tpu_vm.sh", "all", **TPU | {"PATH": path, "CALLS": str(calls), "TRIES": "2"})
    assert done.returncode == 1
    assert "taken away 2 times; run the same command again" in done.stderr
    runs = [line for line in calls.read_text().splitlines() if "mmunlearner_jax.main" in line]
    assert len(runs) == 2


def test_slurm():
    assert dry("slurm.sbatch", "--config=c.py", "--workdir=/shared/a b") == [
        r"srun --kill-on-bad-exit=1 python3 -m mmunlearner_jax.main --config=c.py"
        r" --workdir=/shared/a\ b"
    ]
    (line,) = dry("slurm.sbatch", "--config=c.py", CONTAINER="image")
    assert "--container-image=image" in line
    done = launch("slurm.sbatch", "--config=c.py")
    assert done.returncode == 2 and "not in a Slurm job" in done.stderr


def test_gke():
    (line,) = dry("gke_xpk.sh", "run", "--config=c.py", **GKE)
    assert line == (
        "xpk workload create --workload=mmu --cluster=c --zone=us-west4-a --project=p"
        " --tpu-type=v5litepod-16 --num-slices=1 --docker-image=image --max-restarts=5"
        r" --command=python3\ -m\ mmunlearner_jax.main\ --distributed=on\ --config=c.py"
    )


@pytest.mark.parametrize(
    ("script", "action", "variables"), [("tpu_vm.sh", "run", TPU), ("gke_xpk.sh", "run", GKE)]
)
def test_every_variable_that_is_missing_is_named(script, action, variables):
    for name in variables:
        given = {k: v for k, v in variables.items() if k != name}
        done = launch(script, "--dry-run", action, **given)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {name} is not set")


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.iterdir()))
def test_without_arguments_it_tells_how(script):
    done = launch(script, **(TPU | GKE))
    assert done.returncode == 2
    assert re.search(rf"launch/{script}", done.stderr)
    assert "--dry-run" in done.stderr


def test_shellcheck():
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("needs the extra 'dev'")
    command = [checker, *map(str, LAUNCH.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
