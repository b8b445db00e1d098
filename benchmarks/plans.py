"""Plans all models on several TPU slices: docs/plans.md, and its summary in docs/pods.md.

    python benchmarks/plans.py --only=7b-v5e-16-unlearn    # minutes a program; without: all

Each row of `PLANS` is one call of `python -m mmunlearner_jax.plan`, whose JSON is stored in
docs/plans/. A stored plan that is up to date (`current`) is not made again.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jinja2
from absl import app, flags

from mmunlearner_jax.planning.durations import Duration, whole
from mmunlearner_jax.planning.programs import STAGES

_OUT = flags.DEFINE_string("out", "docs/plans", "Folder of the JSON files, beside the table.")
_ONLY = flags.DEFINE_list("only", [], "Names of plans to make; empty: all.")

# label -> (config, its `model.size`)
SIZES = {
    "7b": ("llava", "llava_1_5_7b"),
    "13b": ("llava", "llava_1_5_13b"),
    "Qwen2-VL 7b": ("qwen2_vl", "qwen2_vl_7b"),
    "Qwen2.5-VL 7b": ("qwen2_5_vl", "qwen2_5_vl_7b"),
    "LLaVA-NeXT 7b": ("llava_next", "llava_next_vicuna_7b"),
    "7b, MLLMU-Bench": ("llava_mllmu", "llava_1_5_7b"),
    "7b, one GPU": ("llava_1gpu", "llava_1_5_7b"),
    "7b, one GPU, adapters": ("llava_1gpu_lora", "llava_1_5_7b"),
    "Qwen2-VL 7b, one GPU": ("qwen2_vl_1gpu", "qwen2_vl_7b"),
    "Qwen2-VL 7b, one GPU, adapters": ("qwen2_vl_1gpu_lora", "qwen2_vl_7b"),
}


def rows(count: int, pack: int = 1) -> dict[str, object]:
    """Returns overrides for batches of `count` rows, split over all chips like the weights."""
    names = ("importance.batch_size", *(f"unlearn.{k}_batch" for k in ("forget", "retain", "text")))
    return {"mesh": "(1,-1,1)", **dict.fromkeys(names, pack * count)}


SIXTEEN, EIGHT = rows(16), rows(8)
BATCH_SQUARES = {"importance.fisher": "batch"}
# A row holds all ten questions about a picture, or ten in words.
PACKED_UNLEARN = {"unlearn.pack": 10, "unlearn.text_pack": 10}
PACKED = rows(16, 10) | PACKED_UNLEARN
SHARED = {"importance.pack": 10, "importance.text_pack": 10}
PACKED_EXAMPLES = rows(16, 10) | SHARED
PACKED_SQUARES = PACKED_EXAMPLES | BATCH_SQUARES
SPLASH = {"model.attention": "splash"}
# Weights, moments and gradients in bfloat16.
HALF = {"model.param_dtype": "bfloat16"}
ALONE = rows(4) | HALF
OWN_ROWS: dict[str, object] = {"importance.pack": 1, "importance.batch_size": 4}
LONG = {"plan.question_tokens": 464}
LARGE_STEPS: dict[str, object] = {
    f"unlearn.{kind}_batch": 32 for kind in ("forget", "retain", "text")
}
# Whole runs of MLLMU-Bench at 5 % by a config, as it is or with eight times the published batch.
# Each stage is a plan, "NAME-STAGE"; runs share those that do not differ.
RUNS: dict[str, tuple[str, str, dict[str, object]]] = {
    "mllmu-v5e-16": ("v5e-16", "7b, MLLMU-Bench", {}),
    "mllmu-v5e-16-large": ("v5e-16", "7b, MLLMU-Bench", LARGE_STEPS),
    "mllmu-v6e-8": ("v6e-8", "7b, MLLMU-Bench", {}),
    "mllmu-h100-8": ("h100-8", "7b, MLLMU-Bench", {}),
    "one-gpu": ("h100-1", "7b, one GPU", {}),
    "one-gpu-lora": ("h100-1", "7b, one GPU, adapters", {}),
    "one-gpu-qwen2-vl": ("h100-1", "Qwen2-VL 7b, one GPU", {}),
    "one-gpu-qwen2-vl-lora": ("h100-1", "Qwen2-VL 7b, one GPU, adapters", {}),
}


def plan_of(run: str, stage: str) -> str:
    """Returns the name of the plan of a run's stage: that of the first run with the same one."""

    def program(name: str) -> object:
        topology, size, values = RUNS[name]
        return topology, size, {k: v for k, v in values.items() if k.startswith(f"{stage}.")}

    return next(f"{name}-{stage}" for name in RUNS if program(name) == program(run))


# name -> (slice, stage, size, overrides)
PLANS: dict[str, tuple[str, str, str, dict[str, object]]] = {
    "7b-v5e-16-unlearn": ("v5e-16", "unlearn", "7b", SIXTEEN),
    "7b-v5e-16-unlearn-packed": ("v5e-16", "unlearn", "7b", PACKED),
    "7b-v5e-16-unlearn-many": ("v5e-16", "unlearn", "7b", rows(160)),
    "7b-v5e-16-unlearn-splash": ("v5e-16", "unlearn", "7b", SIXTEEN | SPLASH),
    "7b-v5e-16-unlearn-packed-splash": ("v5e-16", "unlearn", "7b", PACKED | SPLASH),
    "7b-v5e-16-importance": ("v5e-16", "importance", "7b", SIXTEEN),
    "7b-v5e-16-importance-packed": ("v5e-16", "importance", "7b", PACKED_EXAMPLES),
    "7b-v5e-16-importance-batch": ("v5e-16", "importance", "7b", SIXTEEN | BATCH_SQUARES),
    "7b-v5e-16-importance-batch-splash": (
        *("v5e-16", "importance", "7b"),
        SIXTEEN | BATCH_SQUARES | SPLASH,
    ),
    "7b-v5e-16-importance-batch-packed": ("v5e-16", "importance", "7b", PACKED_SQUARES),
    "7b-v5e-16-importance-batch-packed-splash": (
        *("v5e-16", "importance", "7b"),
        PACKED_SQUARES | SPLASH,
    ),
    "qwen2-vl-7b-v5e-16-unlearn": ("v5e-16", "unlearn", "Qwen2-VL 7b", SIXTEEN),
    "qwen2-vl-7b-v5e-16-unlearn-long": ("v5e-16", "unlearn", "Qwen2-VL 7b", SIXTEEN | LONG),
    "qwen2-vl-7b-v5e-16-unlearn-packed": ("v5e-16", "unlearn", "Qwen2-VL 7b", PACKED),
    "7b-v5p-1-unlearn": ("v5p:1x1x1", "unlearn", "7b", ALONE),
    "7b-v5p-1-unlearn-packed": (
        *("v5p:1x1x1", "unlearn", "7b"),
        rows(4, 10) | HALF | PACKED_UNLEARN,
    ),
    "7b-v5p-1-importance": ("v5p:1x1x1", "importance", "7b", ALONE),
    "7b-v5p-1-importance-batch-packed": (
        *("v5p:1x1x1", "importance", "7b"),
        rows(4, 10) | SHARED | BATCH_SQUARES | HALF,
    ),
    **{
        plan_of(name, stage): (topology, stage, size, values)
        for name, (topology, size, values) in RUNS.items()
        for stage in STAGES
    },
    "one-gpu-own-rows-importance": ("v5p:1x1x1", "importance", "7b, one GPU", OWN_ROWS),
    "7b-v5p-8-unlearn-packed": ("v5p-8", "unlearn", "7b", rows(8, 10) | PACKED_UNLEARN),
    "7b-v6e-8-unlearn-packed": ("v6e-8", "unlearn", "7b", rows(8, 10) | PACKED_UNLEARN),
    "7b-v5p-8-unlearn": ("v5p-8", "unlearn", "7b", EIGHT),
    "7b-v6e-8-unlearn": ("v6e-8", "unlearn", "7b", EIGHT),
    "7b-v5e-16-importance-splash": ("v5e-16", "importance", "7b", SIXTEEN | SPLASH),
    "7b-v5e-16-importance-half": ("v5e-16", "importance", "7b", SIXTEEN | HALF),
    "7b-v5p-8-importance": ("v5p-8", "importance", "7b", EIGHT),
    "7b-v6e-8-importance": ("v6e-8", "importance", "7b", EIGHT),
    "7b-v5e-8-unlearn": ("v5e-8", "unlearn", "7b", EIGHT),
    "7b-v5e-8-importance": ("v5e-8", "importance", "7b", EIGHT),
    "qwen2-vl-7b-v5e-16-importance": ("v5e-16", "importance", "Qwen2-VL 7b", SIXTEEN),
    "qwen2_5-vl-7b-v5e-16-importance": ("v5e-16", "importance", "Qwen2.5-VL 7b", SIXTEEN),
    "qwen2_5-vl-7b-v5e-16-unlearn": ("v5e-16", "unlearn", "Qwen2.5-VL 7b", SIXTEEN),
    "qwen2_5-vl-7b-v6e-8-importance": ("v6e-8", "importance", "Qwen2.5-VL 7b", EIGHT),
    "qwen2_5-vl-7b-v6e-8-unlearn": ("v6e-8", "unlearn", "Qwen2.5-VL 7b", EIGHT),
    "llava-next-7b-v5e-16-importance": ("v5e-16", "importance", "LLaVA-NeXT 7b", SIXTEEN),
    "llava-next-7b-v5e-16-unlearn": ("v5e-16", "unlearn", "LLaVA-NeXT 7b", SIXTEEN),
    "llava-next-7b-v6e-8-importance": ("v6e-8", "importance", "LLaVA-NeXT 7b", EIGHT),
    "llava-next-7b-v6e-8-unlearn": ("v6e-8", "unlearn", "LLaVA-NeXT 7b", EIGHT),
    "13b-v5e-16-unlearn": ("v5e-16", "unlearn", "13b", SIXTEEN),
    "13b-v5e-16-importance": ("v5e-16", "importance", "13b", SIXTEEN),
    "13b-v6e-8-unlearn": ("v6e-8", "unlearn", "13b", EIGHT),
    "13b-v5p-8-unlearn": ("v5p-8", "unlearn", "13b", EIGHT),
    "7b-v5e-8-evaluate": ("v5e-8", "evaluate", "7b", EIGHT),
    "13b-v5e-8-importance": ("v5e-8", "importance", "13b", EIGHT),
    "13b-v5p-8-importance": ("v5p-8", "importance", "13b", EIGHT),
    "13b-v6e-8-importance": ("v6e-8", "importance", "13b", EIGHT),
    "13b-v5e-8-unlearn": ("v5e-8", "unlearn", "13b", EIGHT),
}
NOTES = {
    "importance.fisher": "batch squares",
    "unlearn.pack": "packed",
    "importance.pack": "packed",
    "model.attention": "splash",
    "model.param_dtype": "bfloat16 weights",
    "plan.question_tokens": "questions of 464 tokens",
}


def make(name: str, path: Path) -> None:
    """Makes a plan: calls the planner, which writes JSON to `path`."""
    topology, stage, size, overrides = PLANS[name]
    config, published = SIZES[size]
    values = {"model.size": published, **overrides}
    command = [
        *(sys.executable, "-m", "mmunlearner_jax.plan", f"--config=configs/{config}.py"),
        *(f"--topology={topology}", f"--stage={stage}", f"--json={path}"),
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]
    subprocess.run(command, check=True)


def timed(program: dict) -> bool:
    """Returns whether the times of a program are up to date.

    Older plans count the stacked results of a loop as written whole in each of its steps.
    """
    return "stored" in program["traffic"]


def old(plan: dict) -> bool:
    """Returns whether a plan is older than logits at answers only: rows of 1,024 or 256 tokens."""
    return "plan" not in plan


def current(plan: dict) -> bool:
    """Returns whether a plan is up to date."""
    return not old(plan) and all(map(timed, plan["programs"]))


def whole_runs(folder: Path) -> list[dict]:
    """Returns a row for each of `RUNS` whose stages have all been planned."""
    table = []
    for name, (topology, size, _) in RUNS.items():
        paths = [folder / f"{plan_of(name, stage)}.json" for stage in STAGES]
        if not all(path.exists() for path in paths):
            continue
        plans = [json.loads(path.read_text()) for path in paths]
        most = max((p for plan in plans for p in plan["programs"]), key=lambda p: p["total"])
        row = {"size": size, "slice": topology, "config": SIZES[size][0], "most": most}
        row |= {"mesh": plans[0]["mesh"], "retain": plans[1]["programs"][-1]["questions"]}
        row |= {"hbm": plans[0]["hbm"], "chips": plans[0]["chips"], "seconds": None}
        if all(p["fits"] for plan in plans for p in plan["programs"]):
            stages = [Duration(**of) for plan in plans for of in plan["seconds"].values()]
            row |= {"stages": stages, "seconds": whole(dict(zip(STAGES, stages, strict=True)))}
        table.append(row)
    return table


def summary(table: list[dict]) -> str:
    """Returns a Markdown table of verdicts, with the most memory that a chip needs in a stage."""
    most: dict[tuple[str, str, str], dict] = {}
    for row in table:
        key = row["size"], row["slice"], f"{row['stage']}, {row['note']}".removesuffix(", ")
        if key not in most or row["total"] > most[key]["total"]:
            most[key] = row
    lines = [
        "| model | slice | stage | GiB of a chip, at most | verdict |",
        "|---|---|---|---|---|",
    ]
    for (size, topology, stage), row in sorted(most.items()):
        verdict = "fits" if row["fits"] else "**does not fit**"
        taken, whole = row["total"] / 2**30, row["plan"]["hbm"] / 2**30
        lines.append(f"| {size} | {topology} | {stage} | {taken:.1f} of {whole:.0f} | {verdict} |")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    """Makes the plans that are missing or out of date, and writes the table."""
    folder = Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for name in _ONLY.value or PLANS:
        path = folder / f"{name}.json"
        if not path.exists() or not current(json.loads(path.read_text())):
            make(name, path)
    for name, (topology, _stage, size, overrides) in PLANS.items():
        path = folder / f"{name}.json"
        if path.exists():
            plan = json.loads(path.read_text())
            notes = [text for key, text in NOTES.items() if overrides.get(key, 1) != 1]
            notes += ["160 rows"] * name.endswith("-many") + ["logits of all tokens"] * old(plan)
            note = ", ".join(notes)
            table += [
                {
                    "slice": topology,
                    "size": size,
                    "note": note,
                    "plan": plan,
                    "timed": program["fits"] and timed(program),
                    **program,
                }
                for program in plan["programs"]
            ]
    template = Path(__file__).with_suffix(".md.j2").read_text()
    text = jinja2.Template(template, keep_trailing_newline=True, trim_blocks=True).render(
        rows=table, runs=whole_runs(folder)
    )
    folder.with_suffix(".md").write_text(text)
    page = folder.parent / "pods.md"
    whole = re.sub(
        r"(?s)(?<=<!-- plans -->\n).*?(?=\n<!-- end of plans -->)",
        lambda _: summary(table),
        page.read_text(),
    )
    page.write_text(whole)


if __name__ == "__main__":
    app.run(main)
