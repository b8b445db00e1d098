"""Estimates the memory, traffic and time of a config on a TPU slice or on GPUs, without any.

    python -m mmunlearner_jax.plan --config=configs/llava_mllmu.py --topology=v5e-16
    python -m mmunlearner_jax.plan --config=configs/llava_1gpu.py --topology=h100-1

It compiles the stages' functions with libtpu (extra `tpu`) on this CPU, for the model that
`config.model.size` names, or with `--config.model.size= --config.model.checkpoint=FOLDER` for that
of a checkpoint. It needs neither weights nor data. It prints Markdown.
"""

import dataclasses
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jinja2
from absl import app, flags

from mmunlearner_jax.command_line import (
    one_line,
    parse_flags,
    read_config,
    refuse_lost_output,
    steady_streams,
)
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.config.fitting import fitted
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import write_json
from mmunlearner_jax.models.attention import check_kernel
from mmunlearner_jax.planning.audit import audit_cost
from mmunlearner_jax.planning.durations import MEASURED, durations, whole
from mmunlearner_jax.planning.estimate import Estimate, estimate
from mmunlearner_jax.planning.programs import STAGES, programs
from mmunlearner_jax.planning.topologies import CHIPS, Slice, find_slice
from mmunlearner_jax.progress import Progress
from mmunlearner_jax.sharding import make_mesh

_TOPOLOGY = flags.DEFINE_string(
    *("topology", None),
    "Slice, by shape (v5e:4x4) or name (v5e-16), or GPUs (h100-8); with --search: the generation.",
)
_STAGE = flags.DEFINE_enum("stage", "all", ["all", *STAGES], "Which programs to compile.")
_SEARCH = flags.DEFINE_bool(
    "search", False, "Find the smallest slice on which all programs fit, and its fastest mesh."
)
_JSON = flags.DEFINE_string("json", None, "JSON file to write the estimates to.")


def plan(config: Config, target: Slice, stages: tuple[str, ...]) -> list[Estimate]:
    """Compiles all programs of some stages.

    Args:
        config: Config whose `mesh` arranges the slice's chips.
        target: Slice to compile for.
        stages: Names of stages, from `STAGES`.

    Raises:
        InputError: The mesh or the batches do not fit the slice, the attention kernel does not run
            on its chips, or the compiler failed.
    """
    check_kernel(config.model.attention, target.chip.platform)
    if target.chip.platform != target.devices[0].platform:
        config = config.with_values({"model.attention": "xla"})
    check_config(config, target.devices)
    mesh = make_mesh(config.mesh, target.devices)
    estimates = []
    for stage in stages:
        variants = [
            *zip(
                programs(config, mesh, stage),
                programs(config, mesh, stage, attention="xla"),
                programs(config, mesh, stage, attention="xla", remat="none"),
                strict=True,
            )
        ]
        with Progress(f"{target.name} {stage}", len(variants), unit="program") as progress:
            for variant in variants:
                estimates.append(estimate(*variant, target))
                progress.update()
    return estimates


def search(
    config: Config, generation: str, stages: tuple[str, ...]
) -> tuple[Config, Slice, list[Estimate]]:
    """Finds the smallest slice of a generation on which all programs fit, and its fastest mesh.

    Args:
        config: Config of the run; its `mesh` is replaced.
        generation: Generation of TPUs, e.g. "v5e".
        stages: Names of stages, from `STAGES`.

    Returns:
        The config with that mesh, the slice, and the estimates.

    Raises:
        InputError: No slice is large enough, or the generation is unknown.
    """
    if generation not in CHIPS:
        raise InputError(
            f"--topology={generation}: unknown generation; with --search use one of"
            f" {', '.join(CHIPS)}"
        )
    for size in CHIPS[generation].slices:
        target, fitting = find_slice(f"{generation}-{size}"), []
        chips = len(target.devices)
        for tensor in (n for n in (1, 2, 4, 8) if chips % n == 0):
            meshed = config.with_values({"mesh": (1, chips // tensor, tensor)})
            candidate = fitted(meshed, chips)
            try:
                estimates = plan(candidate, target, stages)
            except InputError as error:
                print(f"{target.name} {candidate.mesh}: {error}", file=sys.stderr)
                continue
            if all(e.fits for e in estimates):
                seconds = sum(e.times * e.seconds for e in estimates)
                fitting.append((seconds, candidate, estimates))
        if fitting:
            _, candidate, estimates = min(fitting, key=lambda entry: entry[0])
            return candidate, target, estimates
    raise InputError(f"no slice of {generation} is large enough; use another generation")


def verdicts(estimates: list[Estimate]) -> dict[str, str]:
    """Returns "fits" or "does not fit" for each stage: whether all its programs fit."""
    return {
        stage: "fits" if all(e.fits for e in estimates if e.stage == stage) else "does not fit"
        for stage in dict.fromkeys(e.stage for e in estimates)
    }


def _compiler() -> str:
    return f"jax {jax.__version__}, libtpu {version('libtpu')}"


def render(config: Config, target: Slice, estimates: list[Estimate]) -> str:
    """Returns the estimates as Markdown."""
    template = (Path(__file__).parent / "planning" / "plan.md.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    taken = durations(estimates, target)
    return environment.from_string(template).render(
        config=config,
        target=target,
        chips=len(target.devices),
        mesh=make_mesh(config.mesh, target.devices).axis_sizes,
        estimates=estimates,
        verdicts=verdicts(estimates),
        durations=taken,
        whole=whole(taken),
        measured=MEASURED,
        audit=audit_cost(config, estimates),
        compiler=_compiler(),
    )


def as_json(config: Config, target: Slice, estimates: list[Estimate]) -> dict[str, Any]:
    """Returns the estimates as an object for JSON."""
    rows = [
        dataclasses.asdict(e)
        | {
            "seconds": e.seconds,
            "bound": e.bound,
            "mfu": e.utilisation(target),
            "flops_per_question": e.flops_per_question,
            "questions_per_second": e.questions_per_second,
        }
        for e in estimates
    ]
    return {
        "compiler": _compiler(),
        "topology": target.name,
        "chips": len(target.devices),
        "hbm": target.chip.hbm,
        "mesh": list(make_mesh(config.mesh, target.devices).axis_sizes),
        "model": config.model.to_dict(),
        "plan": config.plan.to_dict(),
        "pack": {s: getattr(getattr(config, s), "pack", 1) for s in STAGES},
        "programs": rows,
        "verdict": verdicts(estimates),
        "seconds": {k: d._asdict() for k, d in durations(estimates, target).items()},
    }


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    config = read_config(argv)
    # `find_slice` selects libtpu's compiler itself; nothing runs on this machine's accelerators.
    jax.config.update("jax_platforms", "cpu")
    topology = str(_TOPOLOGY.value)
    stages = STAGES if _STAGE.value == "all" else (_STAGE.value,)
    with one_line(Path(_JSON.value or ".")):
        if _SEARCH.value:
            config, target, estimates = search(config, topology, stages)
        else:
            target = find_slice(topology)
            config = fitted(config, len(target.devices))
            estimates = plan(config, target, stages)
        print(render(config, target, estimates))
        if _JSON.value:
            write_json(Path(_JSON.value), as_json(config, target, estimates))
        refuse_lost_output()


if __name__ == "__main__":
    steady_streams()
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=parse_flags)
