"""Counts the cost of steps by people, questions about a picture, model width and devices.

    python -m benchmarks.scaling --out=benchmarks/results/scaling.json --plot=docs/scaling.svg

The method's own steps are compiled for fake CPU devices. Operations are counted in the jaxpr,
collectives and memory in the compiled program. Nothing is run or timed. The model has LLaVA-1.5's
576 tokens a picture and 32,064 words, and four narrow layers in each tower. Layers are in a loop,
so all figures are proportional to their number, except those of embeddings and head.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs import llava
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.planning.costs import flops, traffic
from mmunlearner_jax.planning.programs import Program, programs
from mmunlearner_jax.reporting.figures import LOOK, draw_lines, svg
from mmunlearner_jax.sharding import device_bytes, make_mesh

_QUESTIONS = flags.DEFINE_list(
    "questions", ["1", "2", "5", "10", "20"], "Numbers of questions about one picture."
)
_PEOPLE = flags.DEFINE_list(
    "people", ["50", "100", "200", "500"], "Numbers of people, with ten questions about each."
)
_WIDTHS = flags.DEFINE_list("widths", ["256", "512", "1024"], "Numbers of features of a token.")
_DEVICES = flags.DEFINE_list(
    "devices", ["1", "2", "4", "8"], "Numbers of devices that share weights and batch."
)
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")
_PLOT = flags.DEFINE_string("plot", None, "SVG file for the charts.")

ROWS, WIDTH, LAYERS, HEAD = 8, 512, 4, 64
# The program to compile, by stage; its batch has pictures only.
COMPILED = {"unlearn": "forget step", "importance": "picture batch"}
# The figures do not depend on XLA's optimizations for the CPU.
QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        questions: Questions about a picture, in a batch of `ROWS` pictures; as many in words.
        packed: Whether these questions share a row; if not, each has its own.
        width: Features of a token.
        devices: Devices over which weights and batch are split.
    """

    questions: int = 10
    packed: bool = True
    width: int = WIDTH
    devices: int = 8


def configured(point: Point, people: int = 500) -> tuple[Config, dict[str, Any]]:
    """Returns the config of a point, and the model's sections that differ from LLaVA-1.5-7B."""
    pack = point.questions if point.packed else 1
    values = {"mesh": (1, point.devices, 1), "importance.fisher": "batch"}
    packs = (f"{stage}.{key}" for stage in COMPILED for key in ("pack", "text_pack"))
    values |= dict.fromkeys(packs, pack)
    values |= {"model.compute_dtype": "float32"}  # a CPU has no other
    batches = ("importance.batch_size", *(f"unlearn.{k}_batch" for k in ("forget", "retain")))
    values |= dict.fromkeys((*batches, "unlearn.text_batch"), ROWS * point.questions)
    forget = people // 20
    values |= {
        "plan.questions_per_picture": point.questions,
        "plan.forget": point.questions * forget,
        "plan.pictures": point.questions * (people - forget),
        "plan.text": 5 * people,
    }
    config = typed(llava.get_config()).with_values(values)
    whole, width = LlavaConfig.llava_1_5_7b(), point.width
    towers = {
        "text": dataclasses.replace(
            whole.text,
            hidden_size=width,
            intermediate_size=11 * width // 4,
            num_hidden_layers=LAYERS,
            num_attention_heads=width // HEAD,
        ),
        "vision": dataclasses.replace(
            whole.vision,
            hidden_size=width // 4,
            intermediate_size=width,
            num_hidden_layers=LAYERS,
            num_attention_heads=max(1, width // 4 // HEAD),
        ),
    }
    return config, towers


def made(point: Point, people: int = 500) -> list[Program]:
    """Returns all programs of both stages."""
    config, towers = configured(point, people)
    mesh = make_mesh(config.mesh, jax.devices()[: point.devices])
    return [p for stage in COMPILED for p in programs(config, mesh, stage, **towers)]


@functools.cache
def operations(point: Point) -> dict[str, float]:
    """Returns the operations of one call of every program, over all devices."""
    return {p.name: flops(jax.make_jaxpr(p.function)(*p.arguments)) for p in made(point)}


@functools.cache
def compiled(point: Point) -> list[dict[str, Any]]:
    """Returns the costs of the compiled programs of a point."""
    costs = []
    for program in made(point):
        if program.name != COMPILED[program.stage]:
            continue
        lowered = program.function.lower(*program.arguments)
        executable = lowered.compile(compiler_options=QUICK)
        moved = traffic(executable.as_text()).collectives
        total = operations(point)[program.name]
        costs.append(
            {
                "program": program.name,
                "questions_of_batch": program.questions,
                "flops": total,
                "flops_per_question": total / program.questions,
                "collectives": moved,
                "collective_bytes_per_question": sum(size for _, size in moved.values())
                / program.questions,
                "temporaries": executable.memory_analysis().temp_size_in_bytes,
                "parameters": device_bytes(program.parameters),
            }
        )
    return costs


def run_of(point: Point, people: int) -> dict[str, Any]:
    """Returns the operations of the importance pass and of one epoch of unlearning."""
    totals = dict.fromkeys(COMPILED, 0.0)
    for program in made(point, people):
        totals[program.stage] += program.times * operations(point)[program.name]
    return {"people": people, "packed": point.packed, **totals}


def axes(
    questions: Sequence[int], widths: Sequence[int], devices: Sequence[int]
) -> dict[str, list[Point]]:
    """Returns the points of every axis, with packed rows and with rows of one question."""
    ways = (True, False)
    most = max(devices)
    return {
        "questions": [
            Point(n, way, devices=most) for n in questions for way in ways if n > 1 or not way
        ],
        "width": [Point(width=n, packed=way, devices=most) for n in widths for way in ways],
        "devices": [Point(devices=n, packed=way) for n in devices for way in ways],
    }


def measured(settings: dict[str, list[Point]], people: Sequence[int]) -> dict[str, Any]:
    """Returns all figures, as they are written to JSON."""
    tables = {
        axis: [
            dataclasses.asdict(point) | row
            for point in track(points, description=axis, console=Console(stderr=True))
            for row in compiled(point)
        ]
        for axis, points in settings.items()
    }
    most = max(point.devices for point in settings["devices"])
    tables["people"] = [
        run_of(Point(packed=way, devices=most), n) for n in people for way in (True, False)
    ]
    return {"jax": jax.__version__, "rows": ROWS, "layers": LAYERS, "axes": tables}


def show(result: dict[str, Any], console: Console) -> None:
    """Prints a table for each axis."""
    for axis in ("questions", "width", "devices"):
        table = Table(axis, "rows", title=f"against {axis}", title_justify="left", box=SIMPLE_HEAD)
        table.add_column("program", no_wrap=True)
        for column in ("GFLOPs/q", "collectives", "MiB/q", "temporaries", "parameters"):
            table.add_column(column, justify="right")
        for row in result["axes"][axis]:
            table.add_row(
                str(row[axis]),
                _rows(row),
                row["program"],
                f"{row['flops_per_question'] / 1e9:,.1f}",
                str(sum(n for n, _ in row["collectives"].values())),
                f"{row['collective_bytes_per_question'] / 2**20:.2f}",
                f"{row['temporaries'] / 2**20:,.0f}",
                f"{row['parameters'] / 2**20:,.1f}",
            )
        console.print(table)
    table = Table("people", "rows", title="TFLOPs of a run", title_justify="left", box=SIMPLE_HEAD)
    for stage in COMPILED:
        table.add_column(stage, justify="right")
    for row in result["axes"]["people"]:
        totals = (f"{row[stage] / 1e12:,.1f}" for stage in COMPILED)
        table.add_row(str(row["people"]), _rows(row), *totals)
    console.print(table)
    legend = "q: question; collectives: number, of one device; temporaries, parameters: MiB of one"
    console.print(legend, highlight=False)


def _rows(row: dict[str, Any]) -> str:
    return "shared" if row["packed"] else "own"


def charts(result: dict[str, Any]) -> Figure:
    """Returns charts of the forget step, whose batch has pictures only, and of the whole run."""

    def chart(panel: Axes, title: str, axis: str, field: str, unit: float) -> None:
        rows = [r for r in result["axes"][axis] if r.get("program", "forget step") == "forget step"]
        lines = {
            label: [
                # A single question has a row of its own in both cases.
                (r[axis], r[field] / unit)
                for r in rows
                if r["packed"] == packed or r.get("questions") == 1
            ]
            for label, packed in (("a row for all", True), ("a row each", False))
        }
        draw_lines(panel, title, lines)

    shown = (
        ("GFLOPs a question, by questions a picture", "questions", *PER_QUESTION),
        ("MiB moved a question, by questions a picture", "questions", *MOVED),
        ("GFLOPs a question, by width", "width", *PER_QUESTION),
        ("MiB of temporaries a device, by devices", "devices", "temporaries", 2**20),
        ("MiB moved a question, by devices", "devices", *MOVED),
        ("PFLOPs of an unlearning epoch, by people", "people", "unlearn", 1e15),
    )
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(12.5, 5.8), layout="constrained")
        for panel, wanted in zip(figure.subplots(2, 3).flat, shown, strict=True):
            chart(panel, *wanted)
    return figure


PER_QUESTION = ("flops_per_question", 1e9)
MOVED = ("collective_bytes_per_question", 2**20)


def main(_: list[str]) -> None:
    """Counts, prints and writes the figures."""
    flagged = (_QUESTIONS, _WIDTHS, _DEVICES, _PEOPLE)
    questions, widths, devices, people = ([int(n) for n in flag.value] for flag in flagged)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(devices))
    result = measured(axes(questions, widths, devices), people)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")
    if _PLOT.value:
        Path(_PLOT.value).write_text(svg(charts(result)))
    show(result, Console())


if __name__ == "__main__":
    app.run(main)
