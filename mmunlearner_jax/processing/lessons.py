"""The texts that tokenizers of tiny models are trained on, and the config fields that follow."""

from typing import Any, Protocol


class Lesson(Protocol):
    """A question with its answer, and the encoded picture that it is about, if any."""

    @property
    def image(self) -> bytes | None:
        """Bytes of the picture's file; None: there is no picture."""
        ...

    @property
    def question(self) -> str:
        """The user's turn."""
        ...

    @property
    def answer(self) -> str:
        """The assistant's turn."""
        ...


def vocabulary(tokenizer: Any) -> dict[str, Any]:
    """Returns the fields of a decoder's config that follow from a tokenizer of transformers."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
