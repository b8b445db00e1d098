"""Unlearns the ORL example in rows of one, two and ten questions, and compares what is left.

    python -m benchmarks.packing --seeds=0,1,2,3,4

A step has the same number of questions in all variants, but they are about fewer pictures where a
row holds several (`unlearn.pack`).
"""

from absl import app

from benchmarks.orl_variants import write_page

# Batches that rows of two and of ten divide; the example's own are 16, 32 and 16.
BATCHES = {"unlearn.forget_batch": "20", "unlearn.retain_batch": "40", "unlearn.text_batch": "20"}
VARIANTS = {
    f"rows of {count}": BATCHES | {"unlearn.pack": count, "unlearn.text_pack": count}
    for count in ("1", "2", "10")
}


def main(_: list[str]) -> None:
    """Runs what is missing and writes the table."""
    write_page(__file__, VARIANTS)


if __name__ == "__main__":
    app.run(main)
