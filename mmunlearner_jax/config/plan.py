"""Section `config.plan`: sizes of the data that `python -m mmunlearner_jax.plan` counts on."""

import dataclasses
from typing import ClassVar

from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig(Section):
    """Assumed sizes; the defaults are MLLMU-Bench's at 5 %."""

    key: ClassVar[str] = "plan"

    prompt_tokens: int = option(16, "Tokens up to the picture.", unit="tokens", least=0)
    question_tokens: int = option(96, "Tokens of a question.", unit="tokens", least=1)
    answer_tokens: int = option(32, "Tokens of an answer.", unit="tokens", least=1)
    questions_per_picture: int = option(10, "Taught questions about a picture.", least=1)
    forget: int = option(250, "Taught questions of the forget set.", least=1)
    pictures: int = option(4750, "Taught questions with pictures of other people.", least=1)
    text: int = option(2500, "Taught questions in words.", least=1)
    questions: int = option(14000, "Scored questions.", least=1)
    asked_per_picture: int = option(7, "Scored questions about a picture.", least=1)
    asked_words: int = option(7000, "Scored questions in words, among all.", least=0)
    weighed: int = option(
        0, "Scored questions about pictures whose answers are weighed by likelihood.", least=0
    )
    audited: int = option(
        500, "Scored questions about pictures of the people to forget, which attacks ask.", least=1
    )

    def __post_init__(self):
        super().__post_init__()
        if self.asked_words > self.questions:
            self.refuse("asked_words", f"at most config.plan.questions, {self.questions}")
        if self.weighed > (pictured := self.questions - self.asked_words):
            self.refuse("weighed", f"at most the {pictured} scored questions about pictures")
