"""The records of all benchmarks, and the function that opens a copy of one."""

from pathlib import Path
from typing import Any

from mmunlearner_jax.data.benchmarks.base import Benchmark, BenchmarkRecord
from mmunlearner_jax.data.benchmarks.clear import CLEAR
from mmunlearner_jax.data.benchmarks.fiubench import FIU
from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.data.benchmarks.ppu import PPU
from mmunlearner_jax.data.benchmarks.umu import UMU
from mmunlearner_jax.data.requests import Requested
from mmunlearner_jax.errors import InputError

BENCHMARKS: dict[str, BenchmarkRecord] = {
    record.name: record for record in (MLLMU, CLEAR, FIU, UMU, PPU)
}


def open_benchmark(root: Path, data: Any, seed: int) -> Benchmark:
    """Opens a copy of a benchmark, which is recognised by its config folders.

    Args:
        root: Folder that holds the config folders.
        data: `config.data`, see `BenchmarkRecord.open`.
        seed: Seed of all random choices.

    Raises:
        InputError: The folder holds none of the benchmarks, or several; or `data` has requests that
            the benchmark cannot take.
    """
    owners = owning(root)
    if len(owners) != 1:
        holds = " and ".join(record.folder for record in owners) or f"none of {folders()}"
        raise InputError(f"{root}: holds {holds}; name the folder of one benchmark, {titles()}")
    record, requests = owners[0], data.requests
    if requests and not record.by_person:
        data.refuse("requests", f"(): the data of {record.title} are not apart by person")
    bench = record.open(root, data, seed)
    return Requested(bench, requests) if requests else bench


def owning(root: Path) -> list[BenchmarkRecord]:
    """Returns the benchmarks of which a folder holds a copy; one, if it is as it should be.

    A benchmark that extends another has that one's folder, too, among its own configs.
    """
    owners = [record for record in BENCHMARKS.values() if record.owns(root)]
    return [
        record
        for record in owners
        if not any(record.folder in other.configs for other in owners if other is not record)
    ]


def folders() -> str:
    """Returns the folders by which copies are recognised, for a message."""
    return ", ".join(f"{record.folder} ({record.title})" for record in BENCHMARKS.values())


def titles() -> str:
    """Returns the titles of all benchmarks, for a message."""
    return " or ".join(record.title for record in BENCHMARKS.values())


def sources() -> str:
    """Returns the addresses of the benchmarks on the hub, for a message."""
    pinned = [record.repository for record in BENCHMARKS.values() if record.repository]
    return " or ".join(f"hf://datasets/{repository}" for repository in pinned)
