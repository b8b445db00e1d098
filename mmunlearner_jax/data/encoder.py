"""Prompts in the processor's own chat template, and labels that follow from them."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.processing import confined
from mmunlearner_jax.processing.confined import MEND
from mmunlearner_jax.processing.pictures import OneSize, Pictures


class Tokens(NamedTuple):
    """A tokenised conversation: int32 `input_ids[T]` and `labels[T]`, shared and read-only."""

    input_ids: np.ndarray
    labels: np.ndarray


class Encoder:
    """Turns samples into model inputs by a transformers processor.

    Labels have the transformers convention: position t holds the token of position t, -100 where
    nothing is learned. They are found by prefix length: the prompt with its generation prompt is a
    prefix of the whole conversation, and what follows it is the answer (searching the
    answer's tokens, as published, can hit the question or miss the first token).

    Args:
        processor: A `LlavaProcessor` or one like it, with `chat_template`.
        pictures: What it makes of pictures; by default all of one size, as LLaVA's.
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
        pictures: Pictures | None = None,
        *,
        labels: Literal["answer", "full"] = "answer",
        supervise_end: bool = True,
        cached_images: int = 1024,
    ):
        if labels not in ("answer", "full"):
            raise InputError(f"labels: {labels!r} is neither answer nor full")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pictures = pictures or OneSize(processor)
        self.labels = labels
        self.supervise_end = supervise_end
        self.image = functools.lru_cache(cached_images)(self._image)
        self._count = functools.lru_cache(None)(lambda encoded: self.image(encoded)[1])
        self.tokens = functools.lru_cache(None)(self._tokens)
        self._render = functools.lru_cache(4096)(self._rendered)
        self._ids = functools.lru_cache(4096)(self._tokenised)

    def prompt(self, question: str, images: int) -> str:
        """Returns the user's turn and the assistant's opening; places for the pictures come first.

        Args:
            question: What the user says.
            images: How many pictures come with it.
        """
        return self._render(question, images, None)

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """Returns a training example.

        Args:
            sample: With or without a picture.

        Returns:
            int32 `input_ids` and `labels` of shape [T], and if there is a picture float32
            `picture` [C, H, W].

        Raises:
            InputError: The chat template or the tokenizer joins prompt and answer, so it cannot be
                said where the answer begins; either fails; or the picture is too small or too
                large.
        """
        tokens = self.labelled(sample)._asdict()  # first: what is wrong is said of the sample
        return tokens if sample.image is None else tokens | {"picture": self.image(sample.image)[0]}

    def labelled(self, sample: Sample) -> Tokens:
        """Returns a training example without its picture; raises what `encode` does."""
        try:
            return self.tokens(sample.question, sample.answer, self.image_tokens(sample.image))
        except InputError as error:
            raise InputError(f"sample of {sample.person!r}: {error}") from None

    def prompt_ids(self, prompt: str, images: Sequence[bytes] = ()) -> list[int]:
        """Returns the tokens of a prompt.

        Args:
            prompt: Rendered text (of `prompt` or any), with one image token for every picture.
            images: The encoded pictures, in the order of their places.

        Raises:
            InputError: The text has not as many image tokens as there are pictures, or these are
                more than the model is given room for; or the tokenizer cannot read it.
        """
        return self._ids(prompt, tuple(map(self.image_tokens, images)))

    def pixels(self, images: Sequence[bytes]) -> list[np.ndarray]:
        """Returns float32 [C, H, W] of each encoded picture."""
        return [self.image(image)[0] for image in images]

    def pack(self, rows: Sequence[Sequence[bytes]], tokens: int) -> dict[str, np.ndarray]:
        """Returns the model's arrays of encoded pictures; see `Pictures.pack`."""
        return self.pictures.pack([self.pixels(row) for row in rows], tokens)

    def image_tokens(self, image: bytes | None) -> int:
        """Returns how many tokens of the sequence stand for the picture."""
        return 0 if image is None else self._count(image)

    def _image(self, encoded: bytes) -> tuple[np.ndarray, int]:
        """Returns float32 pixels [C, H, W] and the number of tokens they stand for."""
        pixels, tokens = self.pictures.read(decoded(encoded))
        pixels.flags.writeable = False
        return pixels, tokens

    def _tokens(self, question: str, answer: str, image_tokens: int) -> Tokens:
        images = int(image_tokens > 0)
        prompt = self.prompt(question, images)
        rendered = self._render(question, images, answer)
        said = answer if rendered.find(answer, len(prompt)) >= 0 else answer.strip()
        begin, whole = rendered.find(said, len(prompt)), rendered.rstrip()
        if begin < 0:
            raise InputError(f"chat template: makes {rendered!r} of the answer {answer!r}; {MEND}")
        end = min(begin + len(said), len(whole))
        if not whole[end:]:  # LLaVA's template ends without a mark, so the tokenizer's own is set
            if self.tokenizer.eos_token is None:
                raise InputError("tokenizer: has no eos_token to end an answer with; set it")
            whole += self.tokenizer.eos_token
        counts = (image_tokens,) * images
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

    def _rendered(self, question: str, images: int, answer: str | None) -> str:
        user = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": user}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return confined.render(
            self.processor.chat_template,
            turns,
            self.tokenizer.special_tokens_map,
            add_generation_prompt=answer is None,
        )

    def _tokenised(self, text: str, image_tokens: tuple[int, ...]) -> list[int]:
        token = self.processor.image_token
        first, *rest = text.split(token)
        if len(rest) != len(image_tokens):
            raise InputError(
                f"prompt {text!r}: has {len(rest)} {token} for {len(image_tokens)} pictures;"
                " write one for each"
            )
        if sum(image_tokens) > self.pictures.most_tokens:
            raise InputError(
                f"the pictures of a prompt have {sum(image_tokens)} tokens, above the"
                f" {self.pictures.most_tokens} of config.model.patch_budgets; give a larger budget,"
                " or a smaller config.model.max_pixels"
            )
        places = (token * n + part for n, part in zip(image_tokens, rest, strict=True))
        with refusing(f"tokenizer: prompt {shown(repr(text))}", "write it in other words"):
            whole = "".join([first, *places])
            whole.encode()  # halves of surrogate pairs are no text
            ids = self.tokenizer(whole).input_ids
        if ids.count(self.processor.image_token_id) != sum(image_tokens):
            raise InputError(
                f"tokenizer: makes {ids.count(self.processor.image_token_id)} image tokens of"
                f" {sum(image_tokens)} {token}, prompt {shown(repr(text))}; {MEND}"
            )
        return ids
