"""Measures time and memory of the method's steps on the local devices, with random weights.

    python -m benchmarks.steps --config=configs/llava.py --stage=importance --out=steps.json \
        --peak=989 --config.mesh='(1,1,1)' \
        --config.model.param_dtype=bfloat16 --config.importance.batch_size=4

The programs are those that `python -m mmunlearner_jax.plan` compiles for remote slices; neither
weights nor data are needed. Running out of memory is a result, not an error. `--peak` is one
device's peak in bfloat16 TFLOP/s, from its data sheet; with it, model-FLOP utilisation is printed.
On a CPU the peak is measured: it is that of a large float32 product.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.errors import JaxRuntimeError

from benchmarks.vs_torch.side import SIZE, peak_flops
from mmunlearner_jax.command_line import hide_torch, parse_flags, read_config
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.planning.batches import layout
from mmunlearner_jax.planning.costs import flops
from mmunlearner_jax.planning.programs import Program, model_config, programs
from mmunlearner_jax.sharding import make_mesh

_STAGE = flags.DEFINE_enum("stage", "unlearn", ["importance", "unlearn"], "Stage of the steps.")
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Timed calls.", lower_bound=1)
_PEAK = flags.DEFINE_float(
    "peak", 0.0, "Peak of one device, bfloat16 TFLOP/s; 0: unknown, measured on a CPU."
)
_OUT = flags.DEFINE_string("out", None, "File for the figures.")


def batch(inputs: dict[str, jax.ShapeDtypeStruct], config: Config) -> dict[str, jax.Array]:
    """Returns a batch of random tokens, after a picture's if there is one, and random pixels."""
    model, pictured = model_config(config), "pixel_values" in inputs
    pack = getattr(getattr(config, _STAGE.value), "pack" if pictured else "text_pack")
    arrays = layout(config, model, pack=pack, pictured=pictured).arrays(
        len(inputs["input_ids"]), model
    )
    if pictured:
        pixels = inputs["pixel_values"].shape
        arrays["pixel_values"] = np.random.default_rng(0).standard_normal(pixels, np.float32)
    return {k: jax.device_put(arrays[k], inputs[k].sharding) for k in inputs}


def arguments(program: Program, config: Config) -> tuple[Any, ...]:
    """Returns a program's arguments: small random weights, sums and moments of 0, a full mask."""
    weights = {id(leaf) for leaf in jax.tree.leaves(program.parameters)}

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, dict):
            return batch(leaf, config)
        random = id(leaf) in weights

        def make(key: jax.Array) -> jax.Array:
            if random:
                return 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
            masked = {"bool": True, "uint8": 255}.get(leaf.dtype.name, 0)  # bits are packed
            return jax.numpy.full(leaf.shape, masked, leaf.dtype)

        return jax.jit(make, out_shardings=leaf.sharding)(jax.random.key(0))

    is_batch = lambda x: isinstance(x, dict) and "input_ids" in x  # noqa: E731
    return jax.tree.map(filled, program.arguments, is_leaf=is_batch)


def peak() -> float:
    """Returns the peak of all devices together in FLOP/s; 0 if it is unknown."""
    if _PEAK.value:
        return _PEAK.value * 1e12 * len(jax.devices())
    if jax.devices()[0].platform != "cpu":
        return 0.0
    ones, product = jax.numpy.ones((SIZE, SIZE)), jax.jit(jax.numpy.matmul)
    return peak_flops(lambda: jax.block_until_ready(product(ones, ones)))


def measure(program: Program, plain: Program, config: Config, peak_of_all: float) -> dict[str, Any]:
    """Compiles, runs and times a program.

    Args:
        program: The program to measure.
        plain: The same program with XLA attention and without remat, whose operations are counted.
        config: The config.
        peak_of_all: Peak of all devices together in FLOP/s; 0: unknown.
    """
    figures: dict[str, Any] = {
        "stage": program.stage,
        "name": program.name,
        "questions": program.questions,
    }
    begin = time.monotonic()
    try:
        arrays = arguments(program, config)
        compiled = program.function.lower(*arrays).compile()
        memory = compiled.memory_analysis()
        figures["compile_seconds"] = time.monotonic() - begin
        figures["arguments"] = memory.argument_size_in_bytes
        figures["temporaries"] = memory.temp_size_in_bytes
        seconds = []
        for _ in range(2 + _ROUNDS.value):
            start = time.monotonic()
            out = jax.block_until_ready(compiled(*arrays))
            seconds.append(time.monotonic() - start)
            # The result of a step replaces its first argument, which was donated.
            arrays = (out[0] if program.stage == "unlearn" else out, *arrays[1:])
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return figures | {"fits": False, "said": str(error).splitlines()[0][:200]}
    figures |= {"fits": True, "seconds": seconds[2:], "median": statistics.median(seconds[2:])}
    figures["model_flops"] = flops(jax.make_jaxpr(plain.function)(*plain.arguments))
    figures["questions_per_second"] = program.questions / figures["median"]
    if peak_of_all:
        figures["mfu"] = figures["model_flops"] / figures["median"] / peak_of_all
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:  # CPUs have none
        figures["peak_bytes_so_far"] = stats["peak_bytes_in_use"]
    return figures


def main(argv: list[str]) -> None:
    """Measures every program of the stage."""
    hide_torch()
    config = read_config(argv)
    check_config(config, jax.devices())
    mesh = make_mesh(config.mesh)
    kinds = zip(
        programs(config, mesh, _STAGE.value),
        programs(config, mesh, _STAGE.value, attention="xla", remat="none"),
        strict=True,
    )
    rows, peak_of_all = [], peak()
    for program, plain in kinds:
        rows.append(measure(program, plain, config, peak_of_all))
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "seconds"}), flush=True)
    device, unlearn = jax.devices()[0].device_kind, config.unlearn.to_dict()
    result = {
        "device": device,
        "devices": len(jax.devices()),
        "peak_flops": peak_of_all,
        "jax": jax.__version__,
        "model": config.model.to_dict(),
        "plan": config.plan.to_dict(),
        "questions": {k: v for k, v in unlearn.items() if k.endswith(("_batch", "pack"))}
        | {"importance": config.importance.batch_size, "fisher": config.importance.fisher},
        "programs": rows,
    }
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=parse_flags)
