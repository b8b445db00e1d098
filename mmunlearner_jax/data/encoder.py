"""Token ids and labels of samples, by the processor's own chat template."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mmunlearner_jax.data.clips import StoredClip, is_clip
from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.processing import confined
from mmunlearner_jax.processing.confined import MEND
from mmunlearner_jax.processing.pictures import OneSize, Picture, Pictures


class Tokens(NamedTuple):
    """A tokenised conversation: int32 `input_ids` [T] and `labels` [T], cached and read-only."""

    input_ids: np.ndarray
    labels: np.ndarray


class Encoder:
    """Turns samples into model inputs with a transformers processor.

    A clip takes the place of a picture everywhere. Templates write both in the same way, but for
    the token; so a clip is written as a picture, and its token is put in at the end.

    Labels follow the transformers convention: the label of position t is the token of position t,
    or -100 where it is not supervised. The prompt, up to the point where the assistant answers, is
    a prefix of the whole conversation; the tokens after it are the answer. (The published code
    searches for the answer's tokens, which can match the question or miss the first token.)

    Args:
        processor: A `LlavaProcessor` or one like it, with `chat_template`.
        pictures: Turns pictures into pixels; by default `OneSize`, as LLaVA needs.
        labels: "answer" supervises the answer. "full" supervises the prompt, too, but no image
            tokens (released; D-08: the published loss is of the whole sequence).
        supervise_end: Whether the end of the turn is supervised, too. The published code never
            supervises it, so its models do not learn to stop.
        cached_images: Number of processed pictures in the cache.

    Attributes:
        picture_ids: The tokens that stand for pictures and clips.

    Raises:
        InputError: `labels` is neither "answer" nor "full".
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
        self.outline = functools.lru_cache(None)(self._outline)
        # Where the tokenizer has no token for clips, they are refused when they are read.
        clip = self.tokenizer.get_vocab().get(self.pictures.clip_token)
        self.picture_ids = frozenset({processor.image_token_id, clip} - {None})
        self.tokens = functools.lru_cache(None)(self._tokens)
        self._render = functools.lru_cache(4096)(self._rendered)
        self._ids = functools.lru_cache(4096)(self._tokenised)

    def prompt(self, question: str, images: int) -> str:
        """Returns the user's turn and the opening of the assistant's turn, as rendered text.

        Args:
            question: Text of the user's turn.
            images: Number of pictures; their image tokens come before the question.
        """
        return self._render(question, images, None)

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """Returns the model inputs of a sample.

        Args:
            sample: A sample with or without a picture or clip.

        Returns:
            `input_ids` and `labels`, int32 [T], and for a sample with a picture `picture`, as
            `Pictures.read` or `read_clip` returns it.

        Raises:
            InputError: The chat template or the tokenizer fails, or joins prompt and answer so that
                the start of the answer is unknown; or the picture is too small or too large.
        """
        tokens = self.labelled(sample)._asdict()  # first, as its errors name the sample
        return tokens if sample.image is None else tokens | {"picture": self.image(sample.image)[0]}

    def labelled(self, sample: Sample) -> Tokens:
        """Returns the tokens and labels of a sample; raises the errors of `encode`."""
        try:
            images = () if sample.image is None else (sample.image,)
            return self.tokens(sample.question, sample.answer, *map(self._span, images))
        except InputError as error:
            raise InputError(f"sample of {sample.person!r}: {error}") from None

    def prompt_ids(self, prompt: str, images: Sequence[bytes] = ()) -> list[int]:
        """Returns the token ids of a prompt.

        Args:
            prompt: Rendered text, e.g. from `prompt`, with one image token for every picture.
            images: The encoded pictures, in the order of their image tokens.

        Raises:
            InputError: The numbers of image tokens and of pictures differ, the pictures exceed the
                model's patch budget, or the tokenizer fails.
        """
        return self._ids(prompt, tuple(map(self._span, images)))

    def pixels(self, images: Sequence[bytes]) -> list[Picture]:
        """Returns each encoded picture as `Pictures.read` does."""
        return [self.image(image)[0] for image in images]

    def pack(self, rows: Sequence[Sequence[bytes]], tokens: int) -> dict[str, np.ndarray]:
        """Returns the model's inputs for encoded pictures; see `Pictures.pack`."""
        return self.pictures.pack([self.pixels(row) for row in rows], tokens)

    def image_tokens(self, image: bytes | None) -> int:
        """Returns the number of image tokens that a picture takes; 0 for None."""
        return 0 if image is None else self.outline(image)[1]

    def _image(self, encoded: bytes) -> tuple[Picture, int]:
        """Returns a picture or clip, which is read-only, and its number of image tokens."""
        if is_clip(encoded):
            picture, tokens = self.pictures.read_clip(StoredClip(encoded))
        else:
            picture, tokens = self.pictures.read(decoded(encoded))
        for pixels in jax.tree.leaves(picture):
            pixels.flags.writeable = False
        return picture, tokens

    def _outline(self, encoded: bytes) -> tuple[Picture, int]:
        """Returns what `image` does, with shapes in place of the arrays; it is never forgotten."""
        picture, tokens = self.image(encoded)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), picture), tokens

    def _span(self, image: bytes) -> tuple[str, int]:
        """Returns the token that stands for a picture or clip, and how often."""
        token = self.pictures.clip_token if is_clip(image) else self.processor.image_token
        return token, self.image_tokens(image)

    def _tokens(self, question: str, answer: str, *spans: tuple[str, int]) -> Tokens:
        images = len(spans)
        prompt = self.prompt(question, images)
        rendered = self._render(question, images, answer)
        text = answer if rendered.find(answer, len(prompt)) >= 0 else answer.strip()
        begin, whole = rendered.find(text, len(prompt)), rendered.rstrip()
        if begin < 0:
            raise InputError(
                f"chat template: renders the answer {answer!r} as {rendered!r}; {MEND}"
            )
        end = min(begin + len(text), len(whole))
        if not whole[end:]:  # LLaVA's template has no end mark: the tokenizer's eos_token is added
            if self.tokenizer.eos_token is None:
                raise InputError("tokenizer: has no eos_token, which ends an answer; set it")
            whole += self.tokenizer.eos_token
        prompt_ids, turn_ids, ids = (
            self._ids(text, spans) for text in (prompt, whole[:end], whole)
        )
        if ids[: len(prompt_ids)] != prompt_ids or ids[: len(turn_ids)] != turn_ids:
            raise InputError(
                f"chat template: the tokens of {prompt!r} are no prefix of those of {whole!r}; "
                "use a template and a tokenizer that keep prompt and answer apart"
            )
        input_ids = np.asarray(ids, np.int32)
        labels = input_ids.copy()
        if self.labels == "answer":
            labels[: len(prompt_ids)] = IGNORE
        labels[np.isin(input_ids, [*self.picture_ids])] = IGNORE
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

    def _tokenised(self, text: str, spans: tuple[tuple[str, int], ...]) -> list[int]:
        token, count = self.processor.image_token, sum(n for _, n in spans)
        first, *rest = text.split(token)
        if len(rest) != len(spans):
            raise InputError(
                f"prompt {text!r}: has {len(rest)} {token} for {len(spans)} pictures;"
                " write one for each picture"
            )
        if count > self.pictures.most_tokens:
            raise InputError(
                f"the pictures of a prompt have {count} tokens, above the"
                f" {self.pictures.most_tokens} of config.model.patch_budgets; raise the budget or"
                " lower config.model.max_pixels"
            )
        places = (own * n + part for (own, n), part in zip(spans, rest, strict=True))
        with refusing(f"tokenizer: prompt {shown(repr(text))}", "reword it"):
            whole = "".join([first, *places])
            whole.encode()  # fails on half of a surrogate pair
            ids = self.tokenizer(whole).input_ids
        if (found := sum(map(ids.count, self.picture_ids))) != count:
            raise InputError(
                f"tokenizer: turns {count} {token} into {found} image tokens in prompt"
                f" {shown(repr(text))}; {MEND}"
            )
        return ids
