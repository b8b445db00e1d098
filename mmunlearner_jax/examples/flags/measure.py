"""Measures what a decoder knows by itself of countries and in general, in its own words.

    python -m mmunlearner_jax.examples.flags.measure --config=configs/flags.py \
        --workdir=runs/known --out=known.json

Every question in words is asked openly, in both wordings. What is answered rightly in all of them
is known. The list is what `config.prepare.known_facts` takes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

from mmunlearner_jax.command_line import (
    hide_torch,
    one_line,
    parse_flags,
    read_config,
    steady_streams,
)
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.examples.flags.archives import find_folder
from mmunlearner_jax.examples.flags.asking import Asked, in_words
from mmunlearner_jax.examples.flags.countries import read_countries
from mmunlearner_jax.examples.flags.general import general_questions
from mmunlearner_jax.examples.flags.known import GENERAL, known_text
from mmunlearner_jax.files import expanded, write_whole

Pair = tuple[str, str]  # a country's code, or `GENERAL`, and a key of what is asked


def all_questions(flags_folder: str, countries: int) -> Iterator[tuple[Pair, Question]]:
    """Yields every question in words, once in each wording, with its pair of the list.

    Args:
        flags_folder: Folder of the facts, see `archives.find_folder`.
        countries: Number of countries, the best known first.
    """
    for country in read_countries(find_folder(flags_folder), countries):
        for asked in in_words(country):
            yield from _worded((country.code, asked.key), asked)
    for asked, _ in general_questions():
        yield from _worded((GENERAL, asked.question), asked)


def _worded(pair: Pair, asked: Asked) -> Iterator[tuple[Pair, Question]]:
    for wording in dict.fromkeys((asked.question, asked.paraphrase)):
        question = Question(
            pair[0], "qa", "generation", None, wording, asked.answer, accepted=asked.accepted
        )
        yield pair, question


def known_pairs(answered: Iterable[tuple[Pair, bool]]) -> list[Pair]:
    """Returns the pairs that were answered rightly in every wording, in order.

    Args:
        answered: A pair and whether the answer was right, for every question.
    """
    right: dict[Pair, bool] = {}
    for pair, is_right in answered:
        right[pair] = right.get(pair, True) and is_right
    return [pair for pair, all_right in right.items() if all_right]


def measure(config: Any, workdir: Path) -> list[Pair]:
    """Makes the model of a config, asks it everything and returns what it knows.

    Args:
        config: Config with a section `prepare` of the flags and a pretrained decoder.
        workdir: Folder for the model and the benchmark.
    """
    from mmunlearner_jax.session import Session  # not before `hide_torch`
    from mmunlearner_jax.stages import prepare

    config = config.with_values({"prepare.known_facts": "", "stages": ("prepare",)})
    prepare.run(Session(config, workdir))
    session = Session(config, workdir, str(workdir / "initial"))
    options = config.prepare
    pairs, questions = zip(*all_questions(options.flags_folder, options.countries), strict=True)
    lines = session.answerer().answer(session.params, questions, split="known", label="decoder")
    return known_pairs(zip(pairs, (line["right"] for line in lines), strict=True))


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    config = read_config(argv)
    workdir, out = expanded(flags.FLAGS.workdir), expanded(flags.FLAGS.out)
    with one_line(workdir):
        pairs = measure(config, workdir)
        write_whole(out, known_text(pairs))
    counts = Counter(GENERAL if who == GENERAL else what for who, what in pairs)
    for what, count in counts.items():
        print(f"{count:>5} known: {what}")


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.DEFINE_string("workdir", None, "Folder for the model and the benchmark.", required=True)
    flags.DEFINE_string("out", None, "JSON file to write.", required=True)
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=parse_flags)
