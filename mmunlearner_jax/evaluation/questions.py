"""The questions that a run scores."""

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
    questions = {split: questions[split] for split in options.splits or questions}
    if not options.shots or options.protocol == "plain":
        return questions
    if bench.record.with_shots is None:
        title = bench.record.title
        raise InputError(f"config.evaluate.shots: {title} has no few-shot setting; give 0")
    return bench.record.with_shots(bench, questions, retain=retain, protocol=options.protocol)
