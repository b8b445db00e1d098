"""Prompts in the processor's own chat template, and labels that follow from them."""

import functools
import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError

IGNORE = -100


class Tokens(NamedTuple):
    """A tokenised conversation: int32 `input_ids[T]` and `labels[T]`, shared and read-only."""

    input_ids: np.ndarray
    labels: np.ndarray


class Encoder:
    """Turns samples into model inputs by a transformers processor.

    Labels have the transformers convention: position t holds the token of position t, -100 where
    nothing is learned. They are found by prefix length: the prompt with its generation prompt is a
    prefix of the whole conversation, and what follows it is the answer (`method.md` 1.4; searching
    the answer's tokens, as published, can hit the question or miss the first token).

    Args:
        processor: A `LlavaProcessor` or one like it, with a chat template.
        labels: "answer" supervises what the assistant says; "full" also the prompt, but never the
            image tokens (the published "full sequence" labels; defect D-08).
        supervise_end: Whether the end of the turn is supervised too. The published code never
            does, so its models don't learn to stop.
        cached_images: Number of processed pictures that are kept.

    Raises:
        InputError: `labels` is neither of the two.
    """

    def __init__(
        self,
        processor: Any,
        *,
        labels: Literal["answer", "full"] = "answer",
        supervise_end: bool = True,
        cached_images: int = 1024,
    ):
        if labels not in ("answer", "full"):
            raise InputError(f"labels: {labels!r} is neither answer nor full")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.labels = labels
        self.supervise_end = supervise_end
        self.image = functools.lru_cache(cached_images)(self._image)
        self.tokens = functools.lru_cache(None)(self._tokens)
        self._render = functools.lru_cache(4096)(self._rendered)
        self._ids = functools.lru_cache(4096)(self._tokenised)

    def prompt(self, question: str, with_image: bool) -> str:
        """Returns the user's turn and the assistant's opening, with one `<image>` for a picture."""
        return self._render(question, with_image, None)

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """Returns a training example.

        Args:
            sample: With or without a picture.

        Returns:
            int32 `input_ids` and `labels` of shape [T], and if there is a picture float32
            `pixel_values` [1, C, H, W].

        Raises:
            InputError: The chat template or the tokenizer joins prompt and answer, so it cannot be
                said where the answer begins.
        """
        tokens = self.tokens(sample.question, sample.answer, self.image_tokens(sample.image))
        pixels = {} if sample.image is None else {"pixel_values": self.image(sample.image)[0]}
        return tokens._asdict() | pixels

    def prompt_ids(self, prompt: str, images: Sequence[bytes] = ()) -> list[int]:
        """Returns the tokens of a prompt.

        Args:
            prompt: Rendered text (of `prompt` or any), with one `<image>` for every picture.
            images: The encoded pictures, in the order of their places.

        Raises:
            InputError: The text has not as many `<image>` as there are pictures.
        """
        return self._ids(prompt, tuple(map(self.image_tokens, images)))

    def pixels(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns float32 [I, C, H, W] of I encoded pictures."""
        return np.concatenate([self.image(image)[0] for image in images])

    def image_tokens(self, image: bytes | None) -> int:
        """Returns how many tokens of the sequence stand for the picture."""
        return 0 if image is None else self.image(image)[1]

    def _image(self, encoded: bytes) -> tuple[np.ndarray, int]:
        """Returns float32 pixels [1, C, H, W] and the number of tokens they stand for."""
        with Image.open(io.BytesIO(encoded)) as picture:
            inputs = self.processor(text=self.processor.image_token, images=picture.convert("RGB"))
        pixels = np.asarray(inputs["pixel_values"], np.float32)
        pixels.flags.writeable = False
        (ids,) = inputs["input_ids"]
        return pixels, ids.count(self.processor.image_token_id)

    def _tokens(self, question: str, answer: str, image_tokens: int) -> Tokens:
        prompt = self.prompt(question, image_tokens > 0)
        whole = self._render(question, image_tokens > 0, answer).rstrip()
        end = whole.find(answer, len(prompt)) + len(answer)
        if not whole[end:]:  # LLaVA's template ends without a mark, so the tokenizer's own is set
            whole += self.tokenizer.eos_token
        counts = (image_tokens,) * (image_tokens > 0)
        prompt_ids, turn_ids, ids = (
            self._ids(text, counts) for text in (prompt, whole[:end], whole)
        )
        if ids[: len(prompt_ids)] != prompt_ids or ids[: len(turn_ids)] != turn_ids:
            raise InputError(
                f"chat template: the tokens of {prompt!r} do not begin those of {whole!r}; "
                "give the processor a template and tokenizer that keep prompt and answer apart"
            )
        input_ids = np.asarray(ids, np.int32)
        labels = input_ids.copy()
        if self.labels == "answer":
            labels[: len(prompt_ids)] = IGNORE
        labels[input_ids == self.processor.image_token_id] = IGNORE
        if not self.supervise_end:
            labels[len(turn_ids) :] = IGNORE
        input_ids.flags.writeable = labels.flags.writeable = False
        return Tokens(input_ids, labels)

    def _rendered(self, question: str, with_image: bool, answer: str | None) -> str:
        user = [{"type": "image"}] * with_image + [{"type": "text", "text": question}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": user}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self.processor.apply_chat_template(
            turns, add_generation_prompt=answer is None, tokenize=False
        )

    def _tokenised(self, text: str, image_tokens: tuple[int, ...]) -> list[int]:
        token = self.processor.image_token
        first, *rest = text.split(token)
        if len(rest) != len(image_tokens):
            raise InputError(
                f"prompt {text!r}: has {len(rest)} {token} for {len(image_tokens)} pictures;"
                " write one for each"
            )
        places = (token * n + part for n, part in zip(image_tokens, rest, strict=True))
        return self.tokenizer("".join([first, *places])).input_ids
