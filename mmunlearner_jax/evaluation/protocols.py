"""How questions are put and multiple choice is scored, by `config.evaluate.protocol`."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.models.registry import ARCHITECTURES


class Protocol(NamedTuple):
    """How to ask.

    Attributes:
        prompt: renders a question, with an image token for each of its pictures.
        letters: options are listed with letters, and the answer begins with one; otherwise the
            options are looked for where the model's own words want one (`options`).
        likelihood: options (or their letters) are scored by likelihood.
    """

    prompt: Callable[[Question], str]
    letters: bool
    likelihood: bool

    @property
    def published(self) -> bool:
        """Whether answers are scored as published, by "released"."""
        return self.letters and not self.likelihood


def protocol(
    name: Literal["plain", "strict", "released"],
    record: BenchmarkRecord,
    encoder: Encoder,
    model_type: str,
) -> Protocol:
    """Returns the protocol of a benchmark.

    Args:
        name: "plain": the question alone in the chat template, for models that know no letters.
            "strict": the benchmark's published prompts; the letters' likelihood decides, and the
            published parser's reading stands beside it. "released": the same prompts, and the
            parser alone decides.
        record: of the benchmark, whose prompts.
        encoder: renders the chat template.
        model_type: of the model, whose published prompts.
    """

    def plain(question: Question) -> str:
        return encoder.prompt(question.question, question.image is not None)

    def turn(question: Question) -> str:
        images = sum(x.image is not None for x in (*question.shots, question))
        return encoder.prompt(record.turn(question), images)

    if name == "plain":
        return Protocol(plain, letters=False, likelihood=True)
    in_template = ARCHITECTURES[model_type].published_in_template
    prompt = turn if in_template else record.whole_prompt or turn
    return Protocol(prompt, letters=True, likelihood=name == "strict")
