"""A mesh and batches that fit the devices, where `config.round_batches` lets them be changed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmunlearner_jax.config.run import READS, Config
from mmunlearner_jax.options import Section
from mmunlearner_jax.sharding import MESH_AXES, batch_parts, mesh_shape

# Batches, and the options that say how many of their questions share a row: those that are learned
# or measured, and others.
LEARNED = (
    ("align", "batch", ()),
    ("finetune", "picture_batch", ("pack",)),
    ("finetune", "text_batch", ("text_pack",)),
    ("importance", "batch_size", ("pack", "text_pack")),
    ("unlearn", "forget_batch", ("pack",)),
    ("unlearn", "retain_batch", ("pack",)),
    ("unlearn", "text_batch", ("text_pack",)),
)
OTHERS = (
    ("evaluate.decode", "batch_size", ()),
    ("unlearn.ahead", "batch", ()),
    ("unlearn.probe", "batch", ()),
    ("compare", "relearn_batch", ()),
)


def fitted(config: Config, devices: int) -> Config:
    """Returns the config with a mesh and with batches that fit the devices.

    The tensor axis is lowered to what the devices divide, and batches are rounded up to what the
    mesh divides. Without `config.round_batches` it is the same config.

    Args:
        config: Config of the run.
        devices: Number of devices.

    Raises:
        InputError: The mesh does not fit the devices.
    """
    if not config.round_batches:
        return config
    *others, tensor = config.mesh
    mesh = (*others, math.gcd(tensor, devices)) if tensor > 0 else config.mesh
    parts = batch_parts(mesh_shape(mesh, devices))
    changes: dict[str, Any] = {"mesh": mesh}
    for section, batch, packs in (*LEARNED, *OTHERS):
        of = _section(config, section)
        shared = math.lcm(*(getattr(of, pack) for pack in packs))
        changes[f"{section}.{batch}"] = _rounded(getattr(of, batch), parts * shared)
    for name, own in config.audit.own.items():
        if batch := getattr(own, "batch", 0):
            changes[f"audit.{name}.batch"] = _rounded(batch, parts)
    return config.with_values(changes)


def chosen(before: Config, after: Config, devices: Sequence[Any]) -> str:
    """Returns a line about the mesh and the batches that were chosen; "" where nothing was.

    Args:
        before: The config as it was given.
        after: The config that `fitted` returned.
        devices: All devices.
    """
    if len(devices) == 1:
        return ""
    shape = mesh_shape(after.mesh, len(devices))
    axes = " x ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, shape, strict=True))
    line = f"{len(devices)} devices ({devices[0].device_kind}): mesh {axes}"
    read = {section for stage in after.stages for section in READS[stage]}
    rounded = [
        f"{section}.{batch} {old} to {new}"
        for section, batch, _ in (*LEARNED, *OTHERS)
        if section.partition(".")[0] in read
        and (old := getattr(_section(before, section), batch))
        != (new := getattr(_section(after, section), batch))
    ]
    return line + (f"; batches rounded up: {', '.join(rounded)}" if rounded else "")


def _section(config: Config, key: str) -> Section | Mapping[str, Any]:
    section: Any = config
    for name in key.split("."):
        section = getattr(section, name)
    return section


def _rounded(count: int, unit: int) -> int:
    return -(-count // unit) * unit
