"""Which questions a run scores."""

from mmunlearner_jax.config.evaluate import EvaluateConfig
from mmunlearner_jax.data.benchmarks.base import Benchmark
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError


def scored_questions(
    options: EvaluateConfig, bench: Benchmark, forget: str, retain: str
) -> dict[str, list[Question]]:
    """Returns the scored questions by split, with their demonstrations if any.

    Args:
        options: `config.evaluate`.
        bench: The benchmark's reader.
        forget: Name of the forget split, as `bench.split` gives it.
        retain: Name of the retain split.

    Raises:
        InputError: The benchmark has no such split, or is never asked with demonstrations.
    """
    questions = bench.scored(forget, retain, photos_per_person=options.photos_per_person or None)
    if unknown := [split for split in options.splits if split not in questions]:
        raise InputError(
            f"config.evaluate.splits: {', '.join(unknown)}; this benchmark has"
            f" {', '.join(questions)}"
        )
    questions = {split: questions[split] for split in options.splits or questions}
    if not options.shots or options.protocol == "plain":
        return questions
    if bench.record.with_shots is None:
        title = bench.record.title
        raise InputError(f"config.evaluate.shots: {title} is asked without demonstrations; give 0")
    return bench.record.with_shots(bench, questions, retain=retain, protocol=options.protocol)
