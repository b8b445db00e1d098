"""Writes the flags benchmark.

    python -m mmunlearner_jax.examples.flags --out=DIR --seed=0

The pictures and facts come from two npm packages, which this fetches once into the cache:

    mkdir -p ~/.cache/mmunlearner_jax/flags
    npm pack --pack-destination ~/.cache/mmunlearner_jax/flags svg-country-flags@1.2.10 \
        world-countries@5.1.0
"""

from absl import app, flags

from mmunlearner_jax.command_line import parse_flags, refuse_arguments
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.flags.benchmark import write_flags_benchmark
from mmunlearner_jax.examples.flags.countries import CODES

OPTIONS = ("seed", "flags_folder", "countries", "renderings", "known_facts")


def main(argv: list[str]) -> None:
    """Writes the benchmark that the flags name."""
    refuse_arguments(argv)
    given = flags.FLAGS
    try:
        write_flags_benchmark(given.out, **{name: getattr(given, name) for name in OPTIONS})
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write the benchmark to.", required=True)
    flags.DEFINE_integer("seed", 0, "Decides renderings, options and the countries to forget.")
    flags.DEFINE_string("flags_folder", "", "Folder of the npm archives, or of own pictures.")
    flags.DEFINE_integer("countries", len(CODES), "Number of countries, the best known first.")
    flags.DEFINE_integer("renderings", 4, "Taught renderings of each flag.")
    flags.DEFINE_string("known_facts", "", "JSON list of what may be asked in words, or smollm2.")
    app.run(main, flags_parser=parse_flags)
