"""Writes docs/performance.md from the results of the other benchmarks.

    python -m benchmarks.performance

Reads `benchmarks/results` (`vs_torch`, `scaling`) and `docs/plans` (`plans.py`); missing results
are left out of the page. The text of the page is written by hand in `performance.md.j2`.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import jinja2
from absl import app, flags

from mmunlearner_jax.planning.topologies import CHIPS

_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "Folder of measurements.")
_PLANS = flags.DEFINE_string("plans", "docs/plans", "Folder of the planner's figures.")
_OUT = flags.DEFINE_string("out", "docs/performance.md", "File to write.")

# The planner's counts for one v5p chip hold for any chip with enough memory; only peaks differ.
H100 = CHIPS["h100"]

# Pairs of plans: rows of one question, and packed rows.
PAIRS = {
    "LLaVA 7b": ("7b-v5e-16-unlearn", "7b-v5e-16-unlearn-packed"),
    "LLaVA 7b, 160 rows of one against 16 of ten": (
        "7b-v5e-16-unlearn-many",
        "7b-v5e-16-unlearn-packed",
    ),
    "LLaVA 7b, splash": ("7b-v5e-16-unlearn-splash", "7b-v5e-16-unlearn-packed-splash"),
    "LLaVA 7b, example squares": ("7b-v5e-16-importance", "7b-v5e-16-importance-packed"),
    "LLaVA 7b, batch squares": (
        "7b-v5e-16-importance-batch",
        "7b-v5e-16-importance-batch-packed",
    ),
    "LLaVA 7b, batch squares, splash": (
        "7b-v5e-16-importance-batch-splash",
        "7b-v5e-16-importance-batch-packed-splash",
    ),
    "Qwen2-VL 7b": ("qwen2-vl-7b-v5e-16-unlearn", "qwen2-vl-7b-v5e-16-unlearn-packed"),
}
CHIP_PLANS = ("7b-v5e-16", "7b-v5p-8", "7b-v6e-8", "7b-v5p-1")


def read(folder: str) -> dict[str, Any]:
    """Returns the content of every JSON file of a folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}


def pairs(plans: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns pairs of the same program with rows of one question and with packed rows."""
    table = []
    for label, names in PAIRS.items():
        if not all(name in plans for name in names):
            continue
        alone, packed = (plans[name] for name in names)
        for one, many in zip(alone["programs"], packed["programs"], strict=True):
            both = one["fits"] and many["fits"]
            faster = many["questions_per_second"] / one["questions_per_second"] if both else None
            table.append(
                {
                    "label": label,
                    "alone": one,
                    "packed": many,
                    "hbm": alone["hbm"],
                    "operations": one["flops_per_question"] / many["flops_per_question"],
                    "faster": faster,
                }
            )
    return table


def on_h100(program: dict[str, Any]) -> dict[str, Any]:
    """Returns a program of one v5p chip with times at an H100's peaks."""
    moved = program["memory_seconds"] * CHIPS["v5p"].hbm_bandwidth
    times = {"compute": program["flops"] / H100.flops, "memory": moved / H100.hbm_bandwidth}
    bound = max(times, key=lambda name: times[name])
    return program | {
        "bound": bound,
        "seconds": times[bound],
        "questions_per_second": program["questions"] / times[bound],
        "mfu": program["model_flops"] / times[bound] / H100.flops,
    }


def rooflines(plans: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the programs of every kind of chip, with the highest rate of one chip."""
    table = []
    for plan in CHIP_PLANS:
        for suffix in ("unlearn", "unlearn-packed", "importance", "importance-batch-packed"):
            name = f"{plan}-{suffix}"
            if name not in plans:
                continue
            rows = [
                (plans[name]["topology"], plans[name]["chips"], p) for p in fitting(plans[name])
            ]
            if plans[name]["chips"] == 1:
                rows += [("H100", 1, on_h100(p)) for _, _, p in rows]
            for chip, chips, program in rows:
                each = program["questions_per_second"] / chips
                labels = {
                    "rows": "shared rows" if "packed" in suffix else "own rows",
                    "squares": ", batch squares" if "batch" in suffix else "",
                }
                table.append(program | labels | {"chip": chip, "each": each})
    return sorted(table, key=lambda row: row["chip"])


def fitting(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the programs of a plan that fit."""
    return [program for program in plan["programs"] if program["fits"]]


def main(_: list[str]) -> None:
    """Renders the page."""
    results = read(_RESULTS.value)
    # Older plans lack the bytes stored, and their times are too long (`plans.timed`).
    plans = {
        name: plan
        for name, plan in read(_PLANS.value).items()
        if all("stored" in program["traffic"] for program in plan["programs"])
    }
    template = Path(__file__).with_suffix(".md.j2").read_text()
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["median"] = statistics.median
    text = environment.from_string(template).render(
        torch=[result for result in results.values() if "works" in result],
        pairs=pairs(plans),
        rooflines=rooflines(plans),
        scaling=results.get("scaling"),
    )
    Path(_OUT.value).write_text(text)


if __name__ == "__main__":
    app.run(main)
