"""The report of a comparison: measurements, machine and versions, as JSON and as a table."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.vs_torch.workload import Preset

RESULTS = Path(__file__).parents[1] / "results"
TITLES = {
    "importance": "importance pass",
    "unlearn": "unlearning epoch",
    "finetune": "fine-tuning epoch",
    "evaluate": "evaluation",
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")


def surroundings(preset: Preset) -> dict[str, Any]:
    """Returns the figures of the workload, the machine and the versions."""
    config, cpuinfo = preset.config, Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    return {
        "workload": {
            "dtype": preset.dtype,
            "pictures": 2 * preset.pictures,
            "questions": 2 * preset.pictures * preset.questions,
            "picture_pixels": config.vision.image_size,
            "picture_tokens": config.tokens_per_image,
            "words": config.text.vocab_size,
            "question_tokens": preset.asked,
            "answer_tokens": preset.answered,
            "text": [config.text.hidden_size, config.text.num_hidden_layers],
            "vision": [config.vision.hidden_size, config.vision.num_hidden_layers],
        },
        "hardware": {
            "cpu": model[1] if model else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def path(report: Mapping[str, Any]) -> Path:
    """Returns a report's file: its name has the device (with the cores of a CPU) and preset."""
    ours = report["sides"]["ours"]
    device = f"cpu{report['hardware']['cores']}"
    if ours["kind"] != "cpu":
        device = re.sub(r"\W+", "-", ours["device"]).lower()
    against = "" if report["opponent"] == "published" else f"-{report['opponent']}"
    return RESULTS / f"{device}-{report['preset']}{against}.json"


def show(report: Mapping[str, Any], console: Console) -> None:
    """Prints a report."""
    sides, work = report["sides"], report["workload"]
    peak = _peak(sides)
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("work", no_wrap=True)
    for header in ("seconds", "q/s", "torch / ours", "GFLOP", "of peak", "GiB", "first"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, result in report["works"].items():
        table.add_row(TITLES[name])
        for side in sides:
            figures = result[side]
            median = float(np.median(figures["seconds"]))
            ratio = spread(result["ratios"]) if side == "torch" and _comparable(sides) else ""
            table.add_row(
                f"  {side}" + (f", {figures['threads']} threads" if "threads" in figures else ""),
                f"{median:.3g}",
                f"{work['questions'] / median:.3g}",
                escape(ratio),
                f"{figures['flops'] / 1e9:,.1f}",
                f"{figures['flops'] / median / peak:.0%}",
                f"{figures['peak_bytes'] / 2**30:.2f}" if figures["peak_bytes"] else "",
                f"{figures['first']:.3g}" if side == "ours" else "",
            )
    console.print(table)
    for line in lines(report):
        console.print(line, highlight=False, markup=False)


def lines(report: Mapping[str, Any]) -> list[str]:
    """Returns the lines below the table."""
    work, machine, sides = report["workload"], report["hardware"], report["sides"]
    squares = report.get("example_over_batch")
    notes = []
    if squares:
        ratio, packing = spread(squares["ratios"]), spread(squares["packing"])
        notes.append(f"squares per example / per batch, ours, the same unpacked batches: {ratio}")
        notes.append(f"squares per example, ours, unpacked / packed rows: {packing}")
    notes += [
        *(
            f"{TITLES[name]}: "
            + ", ".join(f"{what} {figure:.6g}" for what, figure in result["agreement"].items())
            + f"; torch computes {result['torch']['flops'] / result['ours']['flops']:.1f} times"
            " the products"
            for name, result in report["works"].items()
            if "agreement" in result
        ),
        f"median [min, max] of {report['rounds']} rounds, pair by pair; seconds: median; q/s:"
        " questions a second; first: seconds of the first call, which is in no other figure and"
        " compiles the programs that no earlier work has compiled; GiB: peak memory of the process"
        " during the work, with libraries, or of the GPU (ours: during all works so far); of peak:"
        f" of {_peak(sides) / 1e9:,.0f} GFLOP/s, the best large matrix product of both sides",
        f"torch: the {report['opponent']} loop",
        f"preset {report['preset']}: {sides['ours']['parameters']:,} parameters, {work['dtype']},"
        f" {work['pictures']} pictures of {work['picture_tokens']} tokens, {work['questions']}"
        f" questions, {work['words']:,} words, seed {report['seed']}",
        f"{machine['cpu']}, {machine['cores']} cores; "
        + ", ".join(f"{side} on {facts['device']}" for side, facts in sides.items())
        + f"; load average at the start {report['load_average']:.1f}; "
        + ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
    ]
    if report["load_average"] > machine["cores"] / 2:
        notes.append("the machine had other load: measure again when it is idle")
    if not _comparable(sides):
        notes.append("no ratio: the two sides ran on different kinds of device")
    if len(sides) == 1:
        notes.append("ours alone: two such models do not fit one accelerator")
    return notes


def spread(ratios: Sequence[float]) -> str:
    """Returns the median, least and greatest ratio as text."""
    return f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def _peak(sides: Mapping[str, Any]) -> float:
    return max(side["peak_flops"] for side in sides.values())


def _comparable(sides: Mapping[str, Any]) -> bool:
    return len({side["kind"] for side in sides.values()}) == 1
