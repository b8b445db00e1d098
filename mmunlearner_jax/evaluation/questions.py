"""The questions that a run scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mmunlearner_jax.config import Config
from mmunlearner_jax.config.evaluate import EvaluateConfig
from mmunlearner_jax.data.abilities import ABILITIES
from mmunlearner_jax.data.benchmarks.base import Benchmark, Check
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.data.sources import fetched
from mmunlearner_jax.data.tsv import FILES, read_set
from mmunlearner_jax.errors import InputError


def scored_questions(
    options: EvaluateConfig, bench: Benchmark, forget: str, retain: str
) -> dict[str, list[Question]]:
    """Returns the scored questions by split, with their shots if there are any.

    Args:
        options: `config.evaluate`.
        bench: The benchmark's reader.
        forget: Name of the forget config, from `bench.split`.
        retain: Name of the retain config, from `bench.split`.

    Raises:
        InputError: The benchmark lacks a split of `options`, or has no few-shot setting.
    """
    questions = bench.scored(forget, retain, photos_per_person=options.photos_per_person or None)
    if unknown := [split for split in options.splits if split not in questions]:
        raise InputError(
            f"config.evaluate.splits: no split {', '.join(unknown)}; give some of"
            f" {', '.join(questions)}"
        )
    questions = {
        split: limited(questions[split], options.most_questions)
        for split in options.splits or questions
    }
    if not options.shots or options.protocol == "plain":
        return questions
    if bench.record.with_shots is None:
        title = bench.record.title
        raise InputError(f"config.evaluate.shots: {title} has no few-shot setting; give 0")
    return bench.record.with_shots(bench, questions, retain=retain, protocol=options.protocol)


def general_questions(config: Config, check: Check) -> dict[str, list[Question]]:
    """Returns the questions about general ability, by split: "general_pope" ...

    Args:
        config: Config of the run; `evaluate.most_questions` counts a question with all its
            rotations once.
        check: `Pictures.check` of the model.

    Raises:
        InputError: A file is missing or unusable.
    """
    options, most_bad = config.evaluate, config.data.max_bad_fraction
    if not options.general:
        return {}
    folder = fetched(options.general_files, FILES)
    questions = {}
    for about in (ABILITIES[name] for name in options.general):
        whole = read_set(about, folder, check, max_bad_fraction=most_bad)
        drawn = limited(whole, options.most_questions)
        questions[about.split] = [asked for question in drawn for asked in about.asked(question)]
    return questions


def counted(
    bench: Benchmark, parts: Sequence[str], questions: Mapping[str, Sequence[Question]]
) -> str:
    """Returns how many records of each kind there are, a line each.

    Args:
        bench: The benchmark.
        parts: Configs of what is taught.
        questions: Scored questions by split.
    """
    counts = {"named people": len(bench.names())}
    for part in parts:
        counts |= {
            f"people of {part}": len(bench.people(part)),
            f"{part}: taught with pictures": len(bench.training(part)),
            f"{part}: taught in words": len(bench.text_training(part)),
        }
    counts |= {f"scored: {split}": len(of_split) for split, of_split in questions.items()}
    return "".join(f"{count:>8,} {what}\n" for what, count in counts.items())


def limited(questions: Sequence[Question], most: int) -> list[Question]:
    """Returns at most so many questions of each modality and task, in their order.

    Args:
        questions: Those of one split.
        most: Number of them; 0: all.
    """
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        kinds[question.modality, question.task].append(number)
    kept = set()
    for numbers in kinds.values():
        order = np.random.default_rng(0).permutation(len(numbers))
        kept |= {numbers[n] for n in order[: most or None]}
    return [question for number, question in enumerate(questions) if number in kept]
