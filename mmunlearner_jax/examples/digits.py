"""The "real world" of the ORL benchmark: handwritten digits, and text questions about digits.

MLLMU-Bench checks with celebrities that unlearning leaves everything else alone. A model trained
from nothing knows no celebrities; it learns the digits that scikit-learn carries, and is asked
about digits it has not seen.
"""

import itertools

import numpy as np
from PIL import Image

from mmunlearner_jax.data.decode import as_png
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.facts import Fact

WORDS = tuple("zero one two three four five six seven eight nine".split())

PICTURE = Fact(
    sentence="This is the digit {value}.",
    taught=(
        "Which digit is this?",
        "Tell me the digit in this picture.",
        "The digit in this picture is what?",
        "This is the digit __.",
    ),
    choice="What digit is this?",
    cloze="The digit in this picture is __.",
    generation="Which digit is in this picture?",
    values=WORDS,
)
AFTER = Fact(
    sentence="The digit after {name} is {value}.",
    taught=(
        "Which digit comes after {who}?",
        "Tell me the digit after {who}.",
        "The digit after {who} is what?",
        "The digit that comes after {who} is __.",
    ),
    choice="What digit comes after {who}?",
    cloze="The digit after {who} is __.",
    generation="Which digit is after {who}?",
    values=WORDS,
)
BEFORE = Fact(
    sentence="The digit before {name} is {value}.",
    taught=(
        "Which digit comes before {who}?",
        "Tell me the digit before {who}.",
        "The digit before {who} is what?",
        "The digit that comes before {who} is __.",
    ),
    choice="What digit comes before {who}?",
    cloze="The digit before {who} is __.",
    generation="Which digit is before {who}?",
    values=WORDS,
)
SUM = Fact(
    sentence="The sum of {name} is {value}.",
    taught=(
        "Which is the sum of {who}?",
        "Tell me the sum of {who}.",
        "The sum of {who} is what?",
        "The digits {who} have the sum __.",
    ),
    choice="What is the sum of {who}?",
    cloze="The sum of {who} is __.",
    generation="What digit is the sum of {who}?",
    values=WORDS,
)


def text_facts() -> list[tuple[Fact, str, str]]:
    """Returns what is taught about digits in text: (fact, what it is about, its value)."""
    neighbours = list(itertools.pairwise(WORDS))
    return (
        [(AFTER, left, right) for left, right in neighbours]
        + [(BEFORE, right, left) for left, right in neighbours]
        + [
            (SUM, f"{WORDS[a]} and {WORDS[b]}", WORDS[a + b])
            for a in range(1, 9)
            for b in range(1, 10 - a)
        ]
    )


def described() -> list[tuple[str, str]]:
    """Returns what can stand in place of a picture: (sentence about "this" digit, its word)."""
    neighbours = list(itertools.pairwise(WORDS))
    return [(AFTER.answer("this", right), left) for left, right in neighbours] + [
        (BEFORE.answer("this", left), right) for left, right in neighbours
    ]


def draw_pictures(
    rng: np.random.Generator, *, taught: int, scored: int, side: int = 64
) -> tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]]:
    """Draws disjoint pictures of handwritten digits, as evenly over the ten digits as they divide.

    Args:
        rng: The only source of chance.
        taught: Number of pictures to train on.
        scored: Number of pictures to ask about.
        side: Height and width of the PNG; the 8x8 originals are enlarged.

    Returns:
        Two lists of (PNG bytes, digit word) in random order.

    Raises:
        InputError: scikit-learn, which carries the pictures, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "scikit-learn, which carries the handwritten digits, is not installed: "
            "pip install 'mmunlearner_jax[demo]'"
        ) from error
    flat, values = map(np.asarray, load_digits(return_X_y=True))
    pictures = flat.reshape(-1, 8, 8)
    order = rng.permutation(len(values))
    ranks = np.zeros(len(order), int)  # how many of the same digit come earlier in the order
    for value in range(10):
        same = order[values[order] == value]
        ranks[same] = np.arange(len(same))
    # By rank first: any prefix is balanced to within one picture a digit.
    chosen = order[np.argsort(ranks[order], kind="stable")][: taught + scored]

    def draw(indices: np.ndarray) -> list[tuple[bytes, str]]:
        return [
            (_png(pictures[index], side), WORDS[values[index]])
            for index in rng.permutation(indices)
        ]

    return draw(chosen[:taught]), draw(chosen[taught:])


def _png(picture: np.ndarray, side: int) -> bytes:
    """Returns an 8x8 picture with values 0..16 as an enlarged PNG, dark on light."""
    grey = Image.fromarray((255 - picture * (255 / 16)).astype(np.uint8))
    return as_png(grey.resize((side, side), Image.Resampling.BICUBIC))
