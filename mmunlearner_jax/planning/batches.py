"""Batches as `data.pipeline` would make them of data that need not be there, all rows alike."""

import dataclasses

import numpy as np

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.pipeline import rounded
from mmunlearner_jax.models.packing import IGNORE, answer_places
from mmunlearner_jax.models.vision_language import VisionLanguageConfig


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one row holds: a prefix, and behind it questions with their answers.

    Attributes:
        prefix: Tokens that the questions share; the last of them are the picture's.
        image: Tokens of the picture, 0 without one.
        questions: Of a row, at most.
        question: Tokens of each, behind the prefix.
        answer: Tokens of its answer.
        group: Questions that may share rows: those about one picture. 0: any.
        packed: Whether rows are shared, so that batches say what belongs to which question.
        full: Whether all tokens but the picture's are supervised, not the answers alone.
    """

    prefix: int
    image: int
    questions: int
    question: int
    answer: int
    group: int
    packed: bool
    full: bool

    @property
    def average(self) -> float:
        """Questions of a row, where those of a picture do not fill its last one."""
        return self.group / -(-self.group // self.questions) if self.group else self.questions

    def rows(self, questions: int) -> int:
        """How many rows so many questions take."""
        if not self.group:
            return -(-questions // self.questions)
        return -(-questions // self.group) * -(-self.group // self.questions)

    def arrays(self, rows: int, config: VisionLanguageConfig) -> dict[str, np.ndarray]:
        """A batch of random words, without pixels.

        Args:
            rows: Of the batch.
            config: Of the model that they are for.
        """
        each = self.question + self.answer
        taken = self.prefix + self.questions * each
        place = np.arange(rounded(taken))
        picture = (place >= self.prefix - self.image) & (place < self.prefix)
        number, inside = np.divmod(place - self.prefix, each)
        supervised = ~picture if self.full else (number >= 0) & (inside >= self.question)
        supervised &= place < taken
        rng = np.random.default_rng(0)
        most = min(config.text.vocab_size, config.image_token_id)
        words = rng.integers(0, most, (rows, len(place)), np.int32)
        ids = np.where(picture, config.image_token_id, words).astype(np.int32)
        batch = {
            "input_ids": ids,
            "attention_mask": np.tile((place < taken).astype(np.int32), (rows, 1)),
            "labels": np.where(supervised, ids, IGNORE).astype(np.int32),
        }
        if self.packed:
            segments = np.where(place < taken, np.maximum(number + 1, 0), 0).astype(np.int32)
            batch["segments"] = np.tile(segments, (rows, 1))
        places = answer_places(batch["labels"], rounded(supervised[1:].sum()))
        return batch | {"answer_places": places}


def layout(config: Config, model: VisionLanguageConfig, *, pack: int, pictured: bool) -> Layout:
    """The rows that `config.plan` describes.

    Args:
        config: With `plan`, `data`, and `model.patch_budgets` where pictures have any size.
        model: What they are for.
        pack: Questions that may share a row.
        pictured: Whether they are about pictures.
    """
    plan, image = config.plan, 0
    if pictured:
        image = model.image_tokens(max(config.model.patch_budgets, default=0))
    group = plan.questions_per_picture if pictured else 0
    return Layout(
        prefix=plan.prompt_tokens + image if pictured else 0,
        image=image,
        # Those of a picture are spread evenly over its rows.
        questions=-(-group // -(-group // pack)) if group else pack,
        question=plan.question_tokens,
        answer=plan.answer_tokens,
        group=group,
        packed=pack > 1,
        full=config.data.labels == "full",
    )
