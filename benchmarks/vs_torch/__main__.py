"""Times the method in JAX against the published loop in transformers and torch.

    python -m benchmarks.vs_torch --preset=small

Both sides have the same random LLaVA (`workload`) and the same questions in the same batches,
float32 (7b: bfloat16), all cores, and a process of their own. Ours works like the stages (`ours`),
torch like the published code (`theirs`) or, with `--opponent=best`, as well as torch can (`best`).
The works are the importance pass by squared batch gradients over the forget and the retain set, an
unlearning epoch (masked ascent on a forget batch and descent on a retain batch, in turns), a
fine-tuning epoch over both sets, and an evaluation of all questions. A batch holds the questions
about one picture. Both sides prepare batches before the clock starts; evaluation reads its pictures
and questions each time. Nothing is timed before both sides have given the same numbers. Measure on
an idle machine: torch's threads suffer most from other load.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console
from tqdm import tqdm

from benchmarks.vs_torch import compare, report
from benchmarks.vs_torch.best import Best
from benchmarks.vs_torch.ours import Ours
from benchmarks.vs_torch.side import Remote
from benchmarks.vs_torch.theirs import Theirs
from benchmarks.vs_torch.workload import PRESETS

SQUARES = "squares"  # example squares in several ways, a work of our side alone

OPPONENTS: dict[str, type[Theirs]] = {"published": Theirs, "best": Best}

_PRESET = flags.DEFINE_enum(
    "preset", "small", list(PRESETS), "Sizes: small for two cores, medium and 7b for a GPU."
)
_OPPONENT = flags.DEFINE_enum(
    "opponent",
    "published",
    [*OPPONENTS],
    "Torch's side: the published loop, or packed rows, compiled steps and one batch of answers.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed calls of each side.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, pictures and words.")
_WORKS = flags.DEFINE_list("works", [*compare.WORKS, SQUARES], "Works to do.")
_OUT = flags.DEFINE_string("out", None, "File of the report; default: in benchmarks/results.")


def run(
    name: str, opponent: str, rounds: int, seed: int, works: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Does the works on both sides, one after the other.

    Yields:
        After each work, all measurements so far, ready for JSON.
    """
    preset, load = PRESETS[name], os.getloadavg()[0]
    # Both sides may share a GPU; by default JAX would reserve three quarters of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    # Huge pages of memory on a CPU, where glibc gives them: fewer page faults on both sides.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with tempfile.TemporaryDirectory() as folder:
        ours = Remote(Ours, preset, seed, Path(folder) if preset.both else None)
        sides = {"ours": ours.facts()}
        if preset.both:
            theirs = Remote(OPPONENTS[opponent], preset, seed, Path(folder))
            sides["torch"] = theirs.facts()
        measured = {
            "preset": name,
            "opponent": opponent,
            "seed": seed,
            "rounds": rounds,
            "load_average": load,
            "sides": sides,
            "works": {},
        } | report.surroundings(preset)
        for what in works:
            if what == SQUARES:
                measured["example_over_batch"] = compare.example_over_batch(ours, rounds)
            elif preset.both:
                measured["works"][what] = compare.compare(what, ours, theirs, rounds)
            else:
                measured["works"][what] = compare.alone(what, ours, rounds)
            yield measured


def main(argv: list[str]) -> None:
    """Entry point of absl."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
    wanted, every = {*_WORKS.value}, [*compare.WORKS, SQUARES]
    if not wanted or not wanted <= {*every}:
        sys.exit(f"error: --works={','.join(_WORKS.value)}: choose among {', '.join(every)}")
    if not _OUT.value and wanted != {*every}:
        sys.exit("error: --works: give --out, too, so that no file of all works is replaced")
    works = [work for work in every if work in wanted]
    states = run(_PRESET.value, _OPPONENT.value, _ROUNDS.value, _SEED.value, works)
    for measured in tqdm(states, total=len(works), unit="work"):
        path = Path(_OUT.value or report.path(measured))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")  # keeps finished works if the next fails
        partial.write_text(json.dumps(measured, indent=2) + "\n")
    partial.replace(path)
    report.show(measured, Console())


if __name__ == "__main__":
    app.run(main)
