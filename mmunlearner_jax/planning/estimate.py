"""Compiles a program for a slice, and estimates its memory, traffic, operations and time."""

import dataclasses
import re
import time
from importlib.metadata import version

import jax
from jax.errors import JaxRuntimeError

from mmunlearner_jax.errors import InputError, out_of_memory
from mmunlearner_jax.planning.costs import Traffic, flops, traffic
from mmunlearner_jax.planning.programs import Program
from mmunlearner_jax.planning.topologies import Slice
from mmunlearner_jax.sharding import device_bytes

_NEEDED = re.compile(r"HLO temporaries \(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimate for one program on one slice. Bytes are those of one chip.

    Attributes:
        stage: The stage that runs the program.
        name: Name of the program, e.g. `forget step`.
        times: Number of calls in a run.
        questions: Mean number of questions of one call.
        arguments: Bytes of the arguments: parameters, state and batch.
        temporaries: Bytes of temporary arrays.
        total: Bytes of arguments, temporaries, results that replace no argument, and code.
        fits: Whether `total` is within the chip's memory.
        compile_seconds: Compile time on this machine, in seconds.
        traffic: Data that one chip moves in one call.
        flops: Operations of all chips in one call, with recomputation.
        model_flops: Operations without the recomputation of `remat`.
        compute_seconds: Time for `flops` at the chips' peak.
        memory_seconds: Time for arguments, results and collectives at the memory's bandwidth.
        network_seconds: Time for the collectives' results at the bandwidth of the chip's links.
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
        """The roofline: the largest of the three times, as if they overlapped perfectly."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)

    @property
    def bound(self) -> str:
        """The name of the largest of the three times."""
        return {
            self.compute_seconds: "compute",
            self.memory_seconds: "memory",
            self.network_seconds: "network",
        }[self.seconds]

    @property
    def flops_per_question(self) -> float:
        """Operations of all chips for one question."""
        return self.flops / self.questions

    @property
    def questions_per_second(self) -> float:
        """Questions a second of all chips, at the roofline."""
        return self.questions / self.seconds

    def utilisation(self, target: Slice) -> float:
        """Returns the model-FLOP utilisation (MFU) at the roofline, a fraction."""
        peak = len(target.devices) * target.chip.flops
        return self.model_flops / (self.seconds * peak)


def estimate(program: Program, counted: Program, plain: Program, target: Slice) -> Estimate:
    """Compiles a program for a slice and estimates its costs.

    Args:
        program: The program to compile; its arguments are sharded over a mesh of the slice.
        counted: The same program with XLA's attention, whose operations a jaxpr shows.
        plain: The program `counted` without recomputation; it gives `model_flops`.
        target: The slice.

    Raises:
        InputError: The compiler failed for another reason than memory.
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
        if not out_of_memory(error) or not needed:
            raise InputError(
                f"{program.stage}, {program.name}: libtpu {version('libtpu')} did not compile it"
                f" ({str(error).splitlines()[0]}); use the libtpu that jax {jax.__version__}"
                " requires: pip install 'jax[tpu]'"
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
    read = arguments + (program.passes - 1) * device_bytes(program.read)
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
