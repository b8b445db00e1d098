"""Writes the tables of docs/one-gpu.md: memory by kind of tensor, and by compiled program.

    python benchmarks/one_gpu.py

The first table is arithmetic (`mmunlearner_jax.memory`). The second one reads the plans that
`python benchmarks/plans.py --only=one-gpu-unlearn,...` has stored in docs/plans.
"""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from absl import app, flags
from flax import nnx

from benchmarks.plans import PLANS, SIZES  # and its flag --out, the folder of the plans
from mmunlearner_jax.command_line import hide_torch
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.memory import least
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.planning.programs import model_config
from mmunlearner_jax.sharding import make_mesh

_PAGE = flags.DEFINE_string("page", "docs/one-gpu.md", "Page whose tables are written.")

LABELS = [label for label in SIZES if "one GPU" in label]
STAGES = ("importance", "unlearn", "evaluate")
KINDS = ("weights", "adapters", "gradients", "moments", "sums of squares", "mask")
GIB = 2**30


def config_of(label: str) -> Config:
    """Returns the config of one of `benchmarks.plans.SIZES`."""
    name, size = SIZES[label]
    config = importlib.import_module(f"configs.{name}").get_config()
    config.model.size = size
    return typed(config)


def needed(label: str) -> dict[str, dict[str, int]]:
    """Returns the bytes that each stage needs at least, by kind of tensor."""
    config = config_of(label)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    model = nnx.merge(*abstract_model(model_config(config), mesh, config.model.param_dtype))
    return {stage: least(config, stage, model) for stage in STAGES}


def by_kind(every: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Returns the table of the arithmetic, in GiB."""
    lines = [f"| config | stage | {' | '.join(KINDS)} | at least |", "|---" * 9 + "|"]
    for label, stages in every.items():
        for stage, kinds in stages.items():
            cells = [f"{kinds[kind] / GIB:.2f}" if kind in kinds else "" for kind in KINDS]
            total = sum(kinds.values()) / GIB
            file = f"`{SIZES[label][0]}`"
            lines.append(f"| {file} | {stage} | {' | '.join(cells)} | **{total:.1f}** |")
    return "\n".join(lines)


def by_program(folder: Path, every: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Returns the table of the compiled programs, in GiB."""
    lines = [
        "| config | stage | program | questions of a row | arguments | temporaries | held beside"
        " | peak |",
        "|---" * 8 + "|",
    ]
    for name, (_, stage, label, _) in PLANS.items():
        path = folder / f"{name}.json"
        if label not in LABELS or not path.exists():
            continue
        plan = json.loads(path.read_text())
        for program in plan["programs"]:
            # Between forget steps the mask waits on the device; adapters have it in the model.
            waits = program["name"] == "retain step" and "adapters" not in every[label][stage]
            beside = every[label][stage]["mask"] if waits else 0
            sizes = (program["arguments"], program["temporaries"], beside)
            cells = " | ".join(f"{size / GIB:.2f}" for size in sizes)
            peak = (program["total"] + beside) / GIB
            where = f"`{SIZES[label][0]}` | {stage} | {program['name']} | {plan['pack'][stage]}"
            lines.append(f"| {where} | {cells} | **{peak:.1f}** |")
    return "\n".join(lines)


def written(page: str, tables: Sequence[tuple[str, str]]) -> str:
    """Returns the page with its tables, each between two comments, replaced."""
    for name, table in tables:
        pattern = rf"(?s)(?<=<!-- {name} -->\n).*?(?=\n<!-- end of {name} -->)"
        page = re.sub(pattern, lambda _, table=table: table, page)
    return page


def main(_: list[str]) -> None:
    """Writes the tables."""
    every, page = {label: needed(label) for label in LABELS}, Path(_PAGE.value)
    tables = [("kinds", by_kind(every)), ("programs", by_program(Path(flags.FLAGS.out), every))]
    page.write_text(written(page.read_text(), tables))
    for _name, table in tables:
        print(table, end="\n\n")


if __name__ == "__main__":
    hide_torch()
    jax.config.update("jax_platforms", "cpu")
    app.run(main)
