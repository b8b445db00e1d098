"""Times the method in JAX against the published loop, written with transformers and torch.

    python -m benchmarks.vs_torch --preset=small

The same random LLaVA (`workload`), the same questions in the same batches, float32 (7b: bfloat16),
all cores; each side in a process of its own. Ours does what the stages do (`ours`), torch what the
published code does (`theirs`): the importance pass by squared batch gradients over the forget and
the retain set, an unlearning epoch (masked ascent on a forget batch, descent on a retain batch, in
turns), a fine-tuning epoch over both sets, and an evaluation of all questions. A batch is the
questions about one picture. Batches are ready before the clock starts, on both sides; evaluation
reads its pictures and questions anew. Nothing is timed before both sides have given the same
numbers. Measure on an idle machine: torch's threads suffer most from company.
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
from benchmarks.vs_torch.ours import Ours
from benchmarks.vs_torch.side import Remote
from benchmarks.vs_torch.theirs import Theirs
from benchmarks.vs_torch.workload import PRESETS

SQUARES = "squares"  # of examples against batches, a work of our side alone

_PRESET = flags.DEFINE_enum(
    "preset", "small", list(PRESETS), "Sizes: small for two cores, medium and 7b for a GPU."
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed calls of each side.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, pictures and words.")
_WORKS = flags.DEFINE_list("works", [*compare.WORKS, SQUARES], "What is done.")
_OUT = flags.DEFINE_string("out", None, "File for everything; by default in benchmarks/results.")


def run(name: str, rounds: int, seed: int, works: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Works of both sides, one after the other.

    Yields:
        After each work, everything that was measured so far, ready for JSON.
    """
    preset, load = PRESETS[name], os.getloadavg()[0]
    # Both sides may share a GPU, of which JAX would take three quarters at once and no more later.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    with tempfile.TemporaryDirectory() as folder:
        ours = Remote(Ours, preset, seed, Path(folder) if preset.both else None)
        sides = {"ours": ours.facts()}
        if preset.both:
            theirs = Remote(Theirs, preset, seed, Path(folder))
            sides["torch"] = theirs.facts()
        found = {
            "preset": name,
            "seed": seed,
            "rounds": rounds,
            "load_average": load,
            "sides": sides,
            "works": {},
        } | report.surroundings(preset)
        for what in works:
            if what == SQUARES:
                found["example_over_batch"] = compare.example_over_batch(ours, rounds)
            elif preset.both:
                found["works"][what] = compare.compare(what, ours, theirs, rounds)
            else:
                found["works"][what] = compare.alone(what, ours, rounds)
            yield found


def main(argv: list[str]) -> None:
    """Entry point of absl."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
    given, every = {*_WORKS.value}, [*compare.WORKS, SQUARES]
    if not given or not given <= {*every}:
        sys.exit(f"error: --works={','.join(_WORKS.value)}: choose among {', '.join(every)}")
    if not _OUT.value and given != {*every}:
        sys.exit("error: --works: give --out, too, so that no file of all works is replaced")
    works = [work for work in every if work in given]
    measured = run(_PRESET.value, _ROUNDS.value, _SEED.value, works)
    for found in tqdm(measured, total=len(works), unit="work"):
        path = Path(_OUT.value or report.path(found))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")  # what is done, if the next one fails
        partial.write_text(json.dumps(found, indent=2) + "\n")
    partial.replace(path)
    report.show(found, Console())


if __name__ == "__main__":
    app.run(main)
