"""Writes all configs of a benchmark as array_record files, for TensorFlow Datasets.

    python -m mmunlearner_jax.data.builders --root=FOLDER --out=DIR

Configs that an earlier call has written are kept.
"""

import contextlib
import io
import sys

import tensorflow_datasets as tfds
from absl import app, flags, logging

from mmunlearner_jax.command_line import parse_flags, refuse_arguments
from mmunlearner_jax.data.benchmarks import titles
from mmunlearner_jax.data.builders import builders
from mmunlearner_jax.data.sources import fetched
from mmunlearner_jax.errors import InputError


def main(argv: list[str]) -> None:
    """Entry point of absl: prints the folder of each config; an input error is one line."""
    refuse_arguments(argv)
    logging.set_verbosity(logging.ERROR)  # tfds warns of every folder that does not exist yet
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    out = flags.FLAGS.out
    try:
        for builder in builders(fetched(flags.FLAGS.root), out):
            kept = " exists already; remove it to write it again" if builder.is_prepared() else ""
            with contextlib.redirect_stdout(io.StringIO()):  # tfds prints about downloads
                builder.download_and_prepare()
            print(f"{builder.data_dir}{kept}")
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {out}: {error}; give another --out")


if __name__ == "__main__":
    flags.DEFINE_string(
        "root",
        None,
        f"Folder that holds CONFIG/*.parquet of {titles()}, or hf://datasets/OWNER/NAME.",
        required=True,
    )
    flags.DEFINE_string("out", None, "Folder to write to.", required=True)
    app.run(main, flags_parser=parse_flags)
