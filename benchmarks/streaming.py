"""Measures the peak memory of processes that read and write a checkpoint of several GB.

    python benchmarks/streaming.py --workdir=runs/streaming --layers=12 --processes=4

The checkpoint is random: LLaVA-1.5-7B's sizes in bfloat16, with fewer layers. The processes are
connected over loopback, with one CPU device each, so the memory of a device is part of its
process's. The script prints JSON: the bytes of each process's shards, its peak of private memory
(without mapped files, which the system may drop at any time), and whether the files written are
equal to the files read, byte by byte.
"""

import dataclasses
import filecmp
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

import mmunlearner_jax as mmu
from mmunlearner_jax import processes
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import device_bytes, make_mesh

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the checkpoints.", required=True)
_LAYERS = flags.DEFINE_integer("layers", 12, "Layers of the decoder; 0.4 GB each.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 4, "Number of processes.", lower_bound=1)
_ROLE = flags.DEFINE_enum("role", "parent", ["parent", "maker", "worker"], "Set by the parent.")


class Peak:
    """Context manager that samples this process's private resident memory."""

    def __enter__(self) -> "Peak":
        self.bytes, self._left = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._left.wait(0.02):
            status = Path("/proc/self/status").read_text()
            kibibytes = re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", status, re.MULTILINE)
            self.bytes = max(self.bytes, 1024 * sum(map(int, kibibytes)))


def make(path: Path) -> None:
    """Writes the random checkpoint."""
    config = LlavaConfig.llava_1_5_7b()
    config = dataclasses.replace(
        config, text=dataclasses.replace(config.text, num_hidden_layers=_LAYERS.value)
    )
    rng = np.random.default_rng(0)
    graphdef, params = abstract_model(config, None, jnp.bfloat16)

    def fill(p: jax.ShapeDtypeStruct) -> jax.Array:
        # 14 random bits, with sign and highest exponent bit 0, are a number below 2.
        bits = rng.integers(0, 2**14, p.shape, dtype=np.uint16)
        return jax.device_put(bits.view(jnp.bfloat16))

    mmu.save_pretrained(nnx.merge(graphdef, jax.tree.map(fill, params)), path)


def work(workdir: Path) -> None:
    """Reads and writes the checkpoint as one of several processes."""
    processes.start()
    mesh = make_mesh((1, -1, 1))
    begin = time.monotonic()
    with Peak() as reading:
        model = mmu.from_pretrained(workdir / "made", mesh=mesh)
        jax.block_until_ready(nnx.split(model)[1])
    read = time.monotonic()
    with Peak() as writing:
        mmu.save_pretrained(model, workdir / "written")
    figures = {
        "shards": device_bytes(nnx.split(model)[1]),
        "reading peak": reading.bytes,
        "writing peak": writing.bytes,
        "reading seconds": round(read - begin, 1),
        "writing seconds": round(time.monotonic() - read, 1),
    }
    (workdir / f"process-{jax.process_index()}.json").write_text(json.dumps(figures))


def call(role: str, **environment: str) -> subprocess.Popen:
    """Starts this script in a role."""
    command = [sys.executable, __file__, f"--role={role}"]
    command += [f"--workdir={_WORKDIR.value}", f"--layers={_LAYERS.value}"]
    return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment)


def main(_: list[str]) -> None:
    """Makes a checkpoint, has the workers read and write it, and compares the files."""
    workdir = Path(_WORKDIR.value)
    if _ROLE.value == "maker":
        return make(workdir / "made")
    if _ROLE.value == "worker":
        return work(workdir)
    shutil.rmtree(workdir / "written", ignore_errors=True)
    if not (workdir / "made").exists() and call("maker").wait():
        sys.exit("making the checkpoint failed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    count = _PROCESSES.value
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    workers = [call("worker", **variables, JAX_PROCESS_ID=str(i)) for i in range(count)]
    if any([worker.wait() for worker in workers]):
        sys.exit("a process failed")
    files = sorted(p.name for p in (workdir / "made").glob("*.safetensors"))
    same = all(
        filecmp.cmp(workdir / "made" / f, workdir / "written" / f, shallow=False) for f in files
    )
    print(
        json.dumps(
            {
                "checkpoint bytes": sum((workdir / "made" / f).stat().st_size for f in files),
                "files": len(files),
                "processes": [
                    json.loads((workdir / f"process-{i}.json").read_text()) for i in range(count)
                ],
                "same bytes": same,
            },
            indent=2,
        )
    )
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
