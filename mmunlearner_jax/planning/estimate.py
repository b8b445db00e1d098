"""Compiles a program for a slice and says what it takes: memory, traffic, operations, time."""

import dataclasses
import re
import time
from importlib.metadata import version

import jax
from jax.errors import JaxRuntimeError

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.planning.costs import Traffic, flops, traffic
from mmunlearner_jax.planning.programs import Program
from mmunlearner_jax.planning.topologies import Slice
from mmunlearner_jax.sharding import device_bytes

_NEEDED = re.compile(r"HLO temporaries \(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One program on one slice; bytes are those of one chip.

    Attributes:
        stage: That runs it.
        name: Of the step.
        times: How often a run calls it.
        questions: That one call works through, on average.
        arguments: Bytes given: parameters, state, batch.
        temporaries: Bytes while it runs.
        total: All of it, results that replace no argument and the program's code included.
        fits: Whether `total` is within the chip's memory.
        compile_seconds: On this machine.
        traffic: Collectives and what is stored.
        flops: Operations of all chips together, recomputation included.
        model_flops: Those without the recomputation that `remat` asks for.
        compute_seconds: `flops` at the chips' peak.
        memory_seconds: Arguments, results and collectives through the chip's memory.
        network_seconds: Results of the collectives through the chip's links.
    """

    stage: str
    name: str
    times: int
    questions: float
    arguments: int
    temporaries: int
    total: int
    fits: bool
    compile_seconds: float
    traffic: Traffic
    flops: float
    model_flops: float
    compute_seconds: float
    memory_seconds: float
    network_seconds: float

    @property
    def seconds(self) -> float:
        """The roofline: the slowest of the three, as if they overlapped perfectly."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)

    @property
    def bound(self) -> str:
        """Which of the three it is."""
        return {
            self.compute_seconds: "compute",
            self.memory_seconds: "memory",
            self.network_seconds: "network",
        }[self.seconds]

    @property
    def flops_per_question(self) -> float:
        """Operations of all chips together for one question."""
        return self.flops / self.questions

    @property
    def questions_per_second(self) -> float:
        """At the roofline, of all chips together."""
        return self.questions / self.seconds

    def utilisation(self, target: Slice) -> float:
        """Model-FLOP utilisation at the roofline."""
        peak = len(target.devices) * target.chip.flops
        return self.model_flops / (self.seconds * peak)


def estimate(program: Program, counted: Program, plain: Program, target: Slice) -> Estimate:
    """Compiles `program` for the slice whose mesh its arguments lie on.

    Args:
        program: To compile.
        counted: The same with XLA's attention, whose operations a jaxpr shows.
        plain: That without recomputation, whose operations are the model's own.
        target: The slice.

    Raises:
        InputError: The compiler failed, for another reason than memory.
    """
    arguments = device_bytes(program.arguments)
    operations = flops(jax.make_jaxpr(counted.function)(*counted.arguments))
    model = flops(jax.make_jaxpr(plain.function)(*plain.arguments))
    begin = time.monotonic()
    moved = Traffic({}, 0)
    try:
        compiled = program.function.lower(*program.arguments).compile()
    except JaxRuntimeError as error:
        needed = _NEEDED.search(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not needed:
            raise InputError(
                f"{program.stage}, {program.name}: libtpu {version('libtpu')} did not compile it"
                f" ({str(error).splitlines()[0]}); use the libtpu that jax {jax.__version__} asks"
                " for: pip install 'jax[tpu]'"
            ) from error
        temporaries = int(float(needed[1]) * _UNITS[needed[2]])
        total = arguments + temporaries
        fits = False
    else:
        memory = compiled.memory_analysis()
        temporaries = memory.temp_size_in_bytes
        results = memory.output_size_in_bytes - memory.alias_size_in_bytes
        total = arguments + temporaries + results + memory.generated_code_size_in_bytes
        fits = total <= target.chip.hbm
        moved = traffic(compiled.as_text())
    collected = sum(size for _, size in moved.collectives.values())
    weights = device_bytes(program.parameters)
    read = arguments + (program.reads - 1) * weights
    return Estimate(
        stage=program.stage,
        name=program.name,
        times=program.times,
        questions=program.questions,
        arguments=arguments,
        temporaries=temporaries,
        total=total,
        fits=fits,
        compile_seconds=time.monotonic() - begin,
        traffic=moved,
        flops=operations,
        model_flops=model,
        compute_seconds=operations / len(target.devices) / target.chip.flops,
        memory_seconds=(read + 2 * moved.stored + 2 * collected) / target.chip.hbm_bandwidth,
        network_seconds=collected / target.chip.ici_bandwidth,
    )
