"""Batches with the shapes that `data.pipeline` would make; all rows are alike, and need no data."""

import dataclasses

import numpy as np

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.pipeline import rounded
from mmunlearner_jax.models.packing import IGNORE, Sizes, answer_places
from mmunlearner_jax.models.vision_language import VisionLanguageConfig


@dataclasses.dataclass(frozen=True)
class Layout:
    """The contents of one row: a prefix, then questions with their answers.

    Attributes:
        prefix: Number of tokens that the questions share, with the image tokens at the end.
        image: Number of image tokens; 0: there is no picture.
        questions: Largest number of questions in a row.
        question: Number of tokens of a question after the prefix.
        answer: Number of tokens of an answer.
        group: Number of questions about one picture, which may share rows; 0: any questions may.
        packed: Whether rows are packed, so that batches have `segments`.
        full: Whether all tokens except image tokens are supervised, or the answers only.
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
        """Mean number of questions in a row; a picture's last row may have fewer."""
        return self.group / -(-self.group // self.questions) if self.group else self.questions

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of packed rows, as `Batches.sizes`."""
        segment = rounded(self.question + self.answer)
        return Sizes(self.questions, self.prefix, segment) if self.packed else None

    def rows(self, questions: int) -> int:
        """Returns the number of rows for a number of questions."""
        if not self.group:
            return -(-questions // self.questions)
        return -(-questions // self.group) * -(-self.group // self.questions)

    def arrays(self, rows: int, config: VisionLanguageConfig) -> dict[str, np.ndarray]:
        """Returns a batch of random tokens without pixels, arrays [rows, T].

        Args:
            rows: Number of rows of the batch.
            config: Config of the model that will read the batch.
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
    """Returns the layout of the rows that `config.plan` describes.

    Args:
        config: Config whose `plan`, `data` and, where pictures may have any size,
            `model.patch_budgets` are read.
        model: Config of the model that will read the rows.
        pack: Largest number of questions in a row.
        pictured: Whether the questions are about pictures.
    """
    plan, image = config.plan, 0
    if pictured:
        image = model.image_tokens(max(config.model.patch_budgets, default=0))
    group = plan.questions_per_picture if pictured else 0
    return Layout(
        prefix=plan.prompt_tokens + image if pictured else 0,
        image=image,
        # The questions about a picture are spread evenly over its rows.
        questions=-(-group // -(-group // pack)) if group else pack,
        question=plan.question_tokens,
        answer=plan.answer_tokens,
        group=group,
        packed=pack > 1,
        full=config.data.labels == "full",
    )
