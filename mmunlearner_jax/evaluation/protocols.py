"""Protocols: how questions are put and multiple choice is scored (`config.evaluate.protocol`)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from mmunlearner_jax.data import ability
from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.models.registry import ARCHITECTURES

ProtocolName = Literal["plain", "strict", "released"]


class Protocol(NamedTuple):
    """How questions are put and multiple choice is scored.

    Attributes:
        prompt: Renders a question, with an image token for each of its pictures.
        letters: Whether the prompt lists the options with letters and the answer is a letter;
            otherwise options are scored at the slot of the model's own answer (`choices`).
        likelihood: Whether options (or their letters) are scored by likelihood.
    """

    prompt: Callable[[Question], str]
    letters: bool
    likelihood: bool

    @property
    def published(self) -> bool:
        """Whether answers are scored as in the published code (protocol "released")."""
        return self.letters and not self.likelihood


def protocol(
    name: ProtocolName,
    record: BenchmarkRecord,
    encoder: Encoder,
    model_type: str,
) -> Protocol:
    """Returns the protocol of a benchmark.

    Args:
        name: "plain": the question alone in the chat template, for models that do not answer with
            letters. "strict": the benchmark's published prompts; the likelihoods of the letters
            decide, and the published parser's letter is recorded, too. "released": the same
            prompts, and the parser alone decides.
        record: The benchmark's record, which has the published prompts.
        encoder: Renders the chat template.
        model_type: The model's type, on which the published prompts depend.
    """

    def plain(question: Question) -> str:
        return encoder.prompt(question.question, len(question.pictures))

    def turn(question: Question) -> str:
        images = sum(len(x.pictures) for x in (*question.shots, question))
        return encoder.prompt(record.turn(question), images)

    in_template = ARCHITECTURES[model_type].published_in_template
    published = turn if in_template else record.whole_prompt or turn
    of_benchmark = plain if name == "plain" else published

    def prompt(question: Question) -> str:
        if question.task == "short":  # general ability is asked in one way by all protocols
            return encoder.prompt(ability.turn(question), len(question.pictures))
        return of_benchmark(question)

    return Protocol(prompt, letters=name != "plain", likelihood=name != "released")
