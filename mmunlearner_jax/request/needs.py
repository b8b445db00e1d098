"""What a request takes: memory of a device, minutes, and disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax
from flax import nnx

from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.memory import STAGES, least
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.sharding import device_bytes

_KEPT = 3  # checkpoints: two, and the one that is being written
_PROGRAMS = 2**28  # compiled programs and predictions
_EARLY = 0.1  # share of the steps after which a run may have forgotten
_PASSES = 3  # a step's forward and backward pass, in forward passes


class Needs(NamedTuple):
    """What a request takes.

    Attributes:
        memory: Bytes of one device that the largest stage needs at least (`memory.least`).
        minutes: Least and most minutes; a guess from the time that asking took.
        disk: Bytes that are written.
    """

    memory: int
    minutes: tuple[float, float]
    disk: int

    def __str__(self) -> str:
        low, high = self.minutes
        return (
            f"needs {_gib(self.memory)} of a device at least, {_gib(self.disk)} of disk, and about"
            f" {low:.0f} to {max(high, 1):.0f} minutes (a guess from the time that asking took)"
        )


def needs(config: Config, model: VisionLanguageModel, seconds: float, questions: int) -> Needs:
    """Returns what a request takes.

    Args:
        config: Config of the run.
        model: The model, with arrays or `jax.ShapeDtypeStruct` that have shardings.
        seconds: Seconds that a question took.
        questions: Number of questions that were asked.
    """
    sizes = {stage: least(config, stage, model) for stage in config.stages if stage in STAGES}
    params = nnx.split(model)[1]
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params))
    whole = weights / device_bytes(params)  # all devices' share of what is split like parameters
    state = sum(sizes["unlearn"].get(kind, 0) for kind in ("gradients", "moments")) * whole
    options = config.unlearn
    batch = options.forget_batch + options.retain_batch + options.text_batch
    steps = options.iterations * batch * _PASSES * seconds
    asking = 3 * questions * seconds  # before, after, and the audit
    return Needs(
        max(sum(size.values()) for size in sizes.values()),
        ((asking + _EARLY * steps) / 60, (asking + steps) / 60),
        round(2 * weights + _KEPT * state + _PROGRAMS),
    )


def check_disk(out: Path, needed: int) -> None:
    """Refuses a folder whose disk is too small.

    Args:
        out: Folder to write to, which need not be there.
        needed: Bytes.

    Raises:
        InputError: Fewer bytes are free.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"--out={shown(out, 200)}: {_gib(free)} of disk are free, but {_gib(needed)} are"
            " needed; free some, or name a folder on another disk"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
