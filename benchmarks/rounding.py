"""Unlearns the ORL example with float32 and with bfloat16 weights, and compares what is left.

    python -m benchmarks.rounding --seeds=0,1,2,3,4

Each seed's vanilla model, trained in float32, unlearns with float32 weights, and with bfloat16
weights whose updates are rounded to the nearest or stochastically (`unlearn.rounding`). Importances
are measured on the same weights. The computation is in float32, as in the example.
"""

from absl import app

from benchmarks.orl_variants import write_page

HALF = {"model.param_dtype": "bfloat16"}
STOCHASTIC = {"unlearn.rounding": "stochastic"}
VARIANTS = {
    "float32": {},
    "bfloat16, nearest": HALF,
    "bfloat16, stochastic": HALF | STOCHASTIC,
}


def main(_: list[str]) -> None:
    """Runs what is missing and writes the table."""
    write_page(__file__, VARIANTS)


if __name__ == "__main__":
    app.run(main)
