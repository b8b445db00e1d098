"""The costs of a program: operations from its jaxpr, and traffic from its compiled HLO.

XLA's own `cost_analysis` counts the body of a loop once. Both counts here multiply it by the number
of iterations.
"""

import collections
import dataclasses
import math
import re
from typing import Any, NamedTuple

from jax.interpreters.partial_eval import dce_jaxpr

# "%name = type opcode(operands), attributes"
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_COMPUTATION = re.compile(r"^(?:(ENTRY) )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_LOOP = re.compile(r"\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|called_computations|branch_computations)=\{?([^},]+)")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that write nothing themselves.
_FREE = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "call")
_BUFFER = 'custom_call_target="AllocateBuffer"'  # writes nothing
_MADE = ("broadcast", "constant")  # an update of such a base also writes the base
_OUTSIDE_HBM = re.compile(r"S\(\d+\)")  # a memory space other than the main one


def flops(jaxpr: Any) -> float:
    """Counts the operations of matrix products and convolutions, two for each multiply-add.

    What no result depends on is not counted; XLA leaves it out, too.

    Args:
        jaxpr: A jaxpr from `jax.make_jaxpr`, closed or not. The body of a loop counts as often as
            it can run.
    """
    whole = getattr(jaxpr, "jaxpr", jaxpr)
    return _counted(dce_jaxpr(whole, [True] * len(whole.outvars))[0])


def _counted(jaxpr: Any) -> float:
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        params, shapes = equation.params, [v.aval.shape for v in equation.invars]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            inner = math.prod(shapes[0][i] for i in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "conv_general_dilated":
            spec = params["dimension_numbers"].rhs_spec
            inner = math.prod(shapes[1][i] for i in spec[1:])
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "cond":
            total += max(map(_counted, params["branches"]))
        elif equation.primitive.name == "while":
            total += _most_steps(params["cond_jaxpr"]) * _counted(params["body_jaxpr"])
        else:
            total += params.get("length", 1) * sum(
                _counted(inner) for value in params.values() for inner in _jaxprs(value)
            )
    return total


def _most_steps(condition: Any) -> int:
    """Returns the largest number of iterations: the constant that the counter is compared with."""
    operands = (v for e in condition.jaxpr.eqns if e.primitive.name == "lt" for v in e.invars)
    return max((int(v.val) for v in operands if hasattr(v, "val")), default=1)


def _jaxprs(value: Any) -> list[Any]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [v for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Data that one chip moves when a program runs once.

    Attributes:
        collectives: Number of collectives and bytes of their results, by kind.
        stored: Bytes that all kernels write to memory. Of an array that is updated in place (a
            loop's stacked results), only the update counts.
    """

    collectives: dict[str, tuple[int, int]]
    stored: int


class _Instruction(NamedTuple):
    kind: str
    opcode: str
    rest: str


class _Program:
    """The computations of an HLO text; they count as often as they run."""

    def __init__(self, hlo: str):
        self.computations: dict[str, dict[str, _Instruction]] = {}
        self.roots: dict[str, str] = {}
        self.entry = current = ""
        for line in hlo.splitlines():
            if opened := _COMPUTATION.match(line):
                current = opened[2]
                self.computations[current] = {}
                self.entry = current if opened[1] else self.entry
            elif match := _INSTRUCTION.match(line):
                root, name, *instruction = match.groups()
                self.computations[current][name] = _Instruction(*instruction)
                if root:
                    self.roots[current] = name
        self.stored = 0
        self.collectives: collections.Counter[tuple[str, str]] = collections.Counter()

    def count(self, name: str, times: int) -> None:
        """Adds the traffic of a computation that runs `times` times, with all that it calls."""
        channels: dict[str, tuple[str, int]] = {}
        self._walk(name, times, channels, kernels=True)
        for kind, size in channels.values():
            self.collectives[kind, "number"] += times
            self.collectives[kind, "bytes"] += times * size

    def _walk(self, name: str, times: int, channels: dict, *, kernels: bool) -> None:
        for result, (kind, opcode, rest) in self.computations[name].items():
            if opcode == "while":
                condition, body = _LOOP.search(rest).groups()  # pyright: ignore
                self.count(body, times * self._trips(condition))
            elif opcode in ("fusion", "call", "conditional", "async-start"):
                for called in _CALLED.findall(rest):
                    self._walk(
                        called.strip().lstrip("%"),
                        times,
                        channels,
                        kernels=kernels and opcode in ("call", "conditional"),
                    )
            base = opcode.removesuffix("-start")
            if base in _COLLECTIVES:
                # A collective that overlaps with computation is split into kernels of one channel.
                channel = _CHANNEL.search(rest)
                key = channel[1] if channel else result
                size = max(array_bytes(kind), default=0)
                channels[key] = base, max(size, channels.get(key, (base, 0))[1])
            elif kernels and opcode not in _FREE and not opcode.endswith(("-start", "-update")):
                # Asynchronous instructions count at their end, but collectives at their start.
                if opcode.removesuffix("-done") not in _COLLECTIVES and _BUFFER not in rest:
                    self.stored += times * sum(self._bytes_of(name, result))

    def _bytes_of(self, computation: str, name: str) -> list[int]:
        """Returns the bytes of every array that an instruction writes to memory."""
        inside = self.computations[computation]
        kind, opcode, rest = inside[name]
        operands = [operand for operand in _OPERAND.findall(rest) if operand in inside]
        sizes = written = array_bytes(kind, only_hbm=True)
        if opcode == "dynamic-update-slice" and inside[operands[0]].opcode not in _MADE:
            written = array_bytes(inside[operands[1]].kind)
        elif opcode == "bitcast" and operands:
            written = self._bytes_of(computation, operands[0])
        elif opcode == "tuple":
            written = [n for operand in operands for n in self._bytes_of(computation, operand)]
        elif opcode == "fusion" and (called := _CALLED.search(rest)):
            within = called[1].strip().lstrip("%")
            written = self._bytes_of(within, self.roots[within])
        # Inside a fusion, layouts do not show which results stay outside HBM; `sizes` has 0 there.
        return [min(both) for both in zip(written, sizes, strict=True)]

    def _trips(self, condition: str) -> int:
        """Returns the number of iterations: the constant that the counter is compared with."""
        numbers = [
            int(rest.split(")")[0])
            for kind, opcode, rest in self.computations[condition].values()
            if opcode == "constant" and kind.startswith("s32[]")
        ]
        return max(numbers, default=1)


def traffic(hlo: str) -> Traffic:
    """Counts the traffic of a compiled program's HLO text; loop bodies count at every run."""
    program = _Program(hlo)
    program.count(program.entry, 1)
    kinds = sorted({kind for kind, _ in program.collectives})
    return Traffic(
        {k: (program.collectives[k, "number"], program.collectives[k, "bytes"]) for k in kinds},
        program.stored,
    )


def array_bytes(kind: str, *, only_hbm: bool = False) -> list[int]:
    """Returns the bytes of every array in an HLO type such as `(f32[2,3]{1,0}, bf16[4])`.

    Args:
        kind: The type.
        only_hbm: Whether arrays outside the main memory count as 0.
    """
    return [
        0
        if only_hbm and _OUTSIDE_HBM.search(layout)
        else math.prod(int(n) for n in shape.split(",") if n) * _width(dtype)
        for dtype, shape, layout in _ARRAY.findall(kind)
    ]


def _width(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1
