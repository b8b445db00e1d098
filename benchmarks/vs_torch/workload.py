"""The workload of both sides: a random LLaVA, pictures of noise, questions of invented words.

The sizes are LLaVA-1.5's: 336 x 336 pixels in patches of 14, so 576 tokens a picture; 32,064 words;
10 questions a picture, of 10 to 20 tokens, with answers of 5 to 30.
"""

import dataclasses
import functools
import io
from typing import Any

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import VISION_7B, LlavaConfig
from mmunlearner_jax.models.llava.tiny import BOS, CHAT_TEMPLATE, EOS, IMAGE, PAD
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.packing import Sizes

SPECIAL = (PAD, BOS, EOS, IMAGE)
ROLES = ("USER:", "ASSISTANT:")
# The published loop's: Adam with the gradient clipped and then masked.
LEARNING_RATE, EPSILON, CLIP = 1e-4, 1e-6, 1.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the model and of its work.

    Attributes:
        config: Config of the model, with the workload's special tokens.
        dtype: Dtype of the weights and of the computation.
        pictures: Pictures of the forget set, and of the retain set.
        questions: Questions about each picture; a batch holds those about one.
        asked: Least and most tokens of a question.
        answered: Least and most tokens of an answer, its end included.
        both: Whether torch does the work, too.
        compiled: Whether the best torch may compile its steps, which takes minutes.
    """

    config: LlavaConfig
    dtype: str = "float32"
    pictures: int = 2
    questions: int = 10
    asked: tuple[int, int] = (10, 20)
    answered: tuple[int, int] = (5, 30)
    both: bool = True
    compiled: bool = True


def _with_special(config: LlavaConfig) -> LlavaConfig:
    """Returns the config with the special tokens of `processor`."""
    pad, bos, eos, image = range(len(SPECIAL))
    text = dataclasses.replace(config.text, pad_token_id=pad, bos_token_id=bos, eos_token_id=eos)
    return dataclasses.replace(config, text=text, image_token_id=image)


def _scaled(vision: ClipConfig, text: LlamaConfig) -> LlavaConfig:
    text = dataclasses.replace(text, max_position_embeddings=4096, rms_norm_eps=1e-5)
    return _with_special(LlavaConfig(vision=vision, text=text, attention="blocks"))


PRESETS = {
    # For the tests: 16 tokens a picture.
    "tiny": Preset(
        _scaled(
            ClipConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=56,
                patch_size=14,
            ),
            LlamaConfig(
                vocab_size=600,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
            ),
        ),
        pictures=1,
        questions=3,
        asked=(3, 6),
        answered=(2, 5),
        compiled=False,
    ),
    # For two cores.
    "small": Preset(
        _scaled(
            ClipConfig(
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=5,
                num_attention_heads=4,
                image_size=336,
                patch_size=14,
            ),
            LlamaConfig(
                vocab_size=32064,
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=6,
            ),
        ),
    ),
    # For an accelerator that both sides share: LLaVA-1.5's tower, half a billion weights in all.
    "medium": Preset(
        _scaled(
            ClipConfig(**VISION_7B),
            LlamaConfig(
                vocab_size=32064,
                hidden_size=1024,
                intermediate_size=2816,
                num_hidden_layers=12,
                num_attention_heads=16,
            ),
        ),
    ),
    # For an accelerator. Torch's optimizer does not fit beside ours, so ours is timed alone.
    "7b": Preset(_with_special(LlavaConfig.llava_1_5_7b()), dtype="bfloat16", both=False),
}


def processor(config: LlavaConfig) -> transformers.LlavaProcessor:
    """Returns a processor with words of one token each and pictures of the model's size."""
    words = [*SPECIAL, *ROLES]
    words += _words(config.text.vocab_size - len(words))
    table = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=PAD))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    table.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, words.index(BOS))]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[IMAGE],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    side = {"height": config.vision.image_size, "width": config.vision.image_size}
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(
            size=side, crop_size=side, do_center_crop=False
        ),
        tokenizer=tokenizer,
        patch_size=config.vision.patch_size,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
    )


@functools.cache
def _words(count: int) -> list[str]:
    return [f"w{n}" for n in range(count)]


@dataclasses.dataclass(frozen=True)
class Workload:
    """The samples of both sets, and their encoder.

    Attributes:
        preset: Sizes of the work.
        encoder: Encodes the samples.
        forget: Samples of the forget set, grouped by picture.
        retain: Samples of the retain set, grouped by picture.
    """

    preset: Preset
    encoder: Encoder
    forget: list[Sample]
    retain: list[Sample]

    @classmethod
    def make(cls, preset: Preset, seed: int) -> "Workload":
        """Draws the samples, the same on both sides."""
        rng = np.random.default_rng(seed)
        forget, retain = (_samples(preset, rng) for _ in range(2))
        return cls(preset, Encoder(processor(preset.config)), forget, retain)

    @property
    def longest_answer(self) -> int:
        """Most tokens of an answer."""
        return self.preset.answered[1]

    def prompt(self, question: Question) -> str:
        """Returns the question in the chat template."""
        return self.encoder.prompt(question.question, 1)

    def questions(self) -> list[Question]:
        """Returns all samples as questions."""
        return [
            Question(
                person=sample.person,
                modality="vqa",
                task="generation",
                image=sample.image,
                question=sample.question,
                answer=sample.answer,
            )
            for sample in (*self.forget, *self.retain)
        ]

    def batches(self, *, packed: bool) -> tuple[list[dict], list[dict]]:
        """Returns host batches of the forget and the retain set, one for each picture.

        Args:
            packed: Whether the questions share a row; if not, each has a row with the picture.

        Returns:
            Batches of one shape. Their questions do not depend on `packed`.
        """
        size, pipeline = self.preset.questions, self._pipeline(packed)
        if not packed:
            batches = list(pipeline)
        else:
            # The pipeline orders rows, and the questions of a row, by its own rule.
            rows = {
                row.samples[0] // size: batch
                for row, batch in zip(pipeline.rows, pipeline, strict=True)
            }
            batches = [rows[number] for number in range(len(rows))]
        return batches[: self.preset.pictures], batches[self.preset.pictures :]

    def sizes(self) -> Sizes | None:
        """Returns the sizes of packed rows."""
        return self._pipeline(packed=True).sizes

    def _pipeline(self, packed: bool) -> Batches:
        size = self.preset.questions
        return Batches(
            [*self.forget, *self.retain],
            self.encoder,
            batch_size=size,
            pack=size if packed else 1,
            seed=0,
            shuffle=False,
            repeat=False,
        )


def _samples(preset: Preset, rng: np.random.Generator) -> list[Sample]:
    words = _words(preset.config.text.vocab_size - len(SPECIAL) - len(ROLES))

    def text(least: int, most: int) -> str:
        count = rng.integers(least, most, endpoint=True)
        return " ".join(words[n] for n in rng.integers(len(words), size=count))

    samples = []
    for picture in range(preset.pictures):
        side = preset.config.vision.image_size
        file = io.BytesIO()
        Image.fromarray(rng.integers(256, size=(side, side, 3), dtype=np.uint8)).save(file, "PNG")
        least, most = preset.answered
        samples += [
            Sample(str(picture), file.getvalue(), text(*preset.asked), text(least - 1, most - 1))
            for _ in range(preset.questions)
        ]
    return samples


def chosen(weights: Any) -> Any:
    """Returns the mask of the unlearning epoch, the positive weights: both sides can make it."""
    return weights > 0
