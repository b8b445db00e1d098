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
    audited: int = option(
        500, "Scored questions about pictures of the people to forget, which attacks ask.", least=1
    )
