"""What tokenizers of tiny models are trained on, and what the model's config takes from them."""

from typing import Any, Protocol


class Lesson(Protocol):
    """A question with its answer, and the encoded picture it is about, if there is one."""

    @property
    def image(self) -> bytes | None:
        """The encoded picture."""
        ...

    @property
    def question(self) -> str:
        """What the user says."""
        ...

    @property
    def answer(self) -> str:
        """What the assistant says."""
        ...


def vocabulary(tokenizer: Any) -> dict[str, Any]:
    """The fields of a decoder's config that follow from a tokenizer of transformers."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
