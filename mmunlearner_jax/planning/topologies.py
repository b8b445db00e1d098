"""Descriptions of TPU slices and GPU nodes: figures of their chips, and devices to compile for.

Neither is needed. Sources of the figures: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of Google
Cloud's documentation (`docs/pods.md` names them), and NVIDIA's data sheet "H100 Tensor Core GPU"
(SXM: dense bfloat16, HBM3, NVLink). Bandwidths are those of one chip, in one direction, over all
its links.

Nothing here can compile for a GPU. There v5p chips stand in, as many as there are GPUs, with the
figures of the GPU: operations are the same, and memory and traffic are those of another compiler,
which fuses differently.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

from jax.experimental import topologies

from mmunlearner_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip, or one GPU.

    Attributes:
        compiler_name: Name of the generation in libtpu.
        options: Options of libtpu besides the shape.
        hbm: Memory, in bytes.
        flops: Peak of bfloat16 operations a second.
        hbm_bandwidth: Bandwidth of the memory, in bytes a second.
        ici_bandwidth: Bandwidth to other chips, in bytes a second.
        slices: Shapes by the number in the product name (chips, or cores for v5p).
        platform: "tpu", or "gpu", for which another generation stands in.
    """

    compiler_name: str
    options: dict[str, Any]
    hbm: int
    flops: float
    hbm_bandwidth: float
    ici_bandwidth: float
    slices: dict[int, str]
    platform: str = "tpu"


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8"}
_NODE = {1: "1x1x1", 4: "2x2x1", 8: "2x2x2"}
_V5P = ("v5", {"chip_config_name": "megacore"})

CHIPS = {
    "v5e": Chip("v5e", {}, 16 * GIB, 197e12, 819e9, 200e9, _FLAT),
    "v5p": Chip(*_V5P, 95 * GIB, 459e12, 2765e9, 600e9, _CUBES),
    "v6e": Chip("v6e", {}, 32 * GIB, 918e12, 1638e9, 400e9, _FLAT),
    # An "80 GB" card tells 81,559 MiB.
    "h100": Chip(*_V5P, 81559 * 2**20, 989e12, 3350e9, 450e9, _NODE, "gpu"),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice to plan for.

    Attributes:
        name: Generation and shape, e.g. "v5e:4x4"; of GPUs their number, e.g. "h100-8".
        chip: Figures of each of its chips.
        devices: Descriptions of devices that `jax.make_mesh` takes; nothing can run on them.
    """

    name: str
    chip: Chip
    devices: Sequence[Any]


def find_slice(name: str) -> Slice:
    """Describes a slice by shape ("v5e:4x4") or product name ("v5p-8"), or GPUs ("h100-8").

    Raises:
        InputError: There is no such slice, or libtpu is not installed.
    """
    separator = ":" if ":" in name else "-"
    generation, _, size = name.partition(separator)
    chip = CHIPS.get(generation)
    shape = size
    if chip is not None and (separator == "-" or chip.platform == "gpu"):
        shape = chip.slices.get(int(size) if size.isdigit() else 0, "")
    if chip is None or not re.fullmatch(r"\d+(x\d+)+", shape):
        known = ", ".join(f"{g}-{n}" for g, c in CHIPS.items() for n in c.slices)
        raise InputError(f"--topology={name}: unknown; use a shape like v5e:4x4, or one of {known}")
    known_as = f"{generation}-{size}" if chip.platform == "gpu" else f"{generation}:{shape}"
    return Slice(known_as, chip, _devices(chip, shape))


def _devices(chip: Chip, shape: str) -> Sequence[Any]:
    # Without these, libtpu asks for the machine's metadata and for a lock that others may hold.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    sides = [int(n) for n in shape.split("x")]
    bounds = tuple(min(n, 2) for n in sides[:2]) + (1,)
    try:
        return topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{chip.compiler_name}:{shape}",
            chips_per_host_bounds=bounds,
            **chip.options,
        ).devices
    except Exception as error:  # libtpu raises various types
        cause = str(error).strip().splitlines()[0]
        raise InputError(
            f"--topology={shape}: libtpu cannot describe it ({cause}); install the extra 'tpu', or"
            " use another shape"
        ) from error
