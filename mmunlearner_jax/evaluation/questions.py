"""The questions that a run scores."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mmunlearner_jax.config.evaluate import EvaluateConfig
from mmunlearner_jax.data.benchmarks.base import Benchmark
from mmunlearner_jax.data.samples import Question
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
