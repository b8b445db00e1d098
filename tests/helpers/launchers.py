"""Runs a launcher with the variables that it needs."""

import os
import socket
import subprocess
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch"
TPU = {
    "NAME": "mmu",
    "ZONE": "us-west4-a",
    "TYPE": "v5litepod-16",
    "VERSION": "v2-alpha-tpuv5-lite",
    "SOURCE": "git+https://example.org/mmu",
    "CONFIG": "configs/llava.py",
}
GKE = {
    "NAME": "mmu",
    "CLUSTER": "c",
    "ZONE": "us-west4-a",
    "PROJECT": "p",
    "TYPE": "v5litepod-16",
    "IMAGE": "image",
}


def free_port() -> int:
    """Returns a port of this host that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "PYTHON": "python3", **variables}
    command = [str(LAUNCH / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def dry(script: str, *arguments: str, **variables: str) -> list[str]:
    done = launch(script, "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]
