"""What is kept where nothing is given: pictures that scikit-learn ships."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from mmunlearner_jax.data.decode import as_png
from mmunlearner_jax.examples import digits
from mmunlearner_jax.request.sets import Subject
from mmunlearner_jax.request.topics import THING, Topic

_PARTS = 4  # along each side of a photograph
_DIGITS = 20  # to learn from, and as many that are set apart


def scenes(rng: np.random.Generator) -> Subject:
    """Returns parts of the two photographs, a temple and a flower.

    Args:
        rng: Draws which of them are set apart.
    """
    parts = []
    for pixels in load_sample_images().images:
        height, width = (side // _PARTS for side in pixels.shape[:2])
        for row in range(_PARTS):
            for column in range(_PARTS):
                there = slice(row * height, (row + 1) * height)
                parts.append(
                    as_png(Image.fromarray(pixels[there, column * width : (column + 1) * width]))
                )
    order = [parts[n] for n in rng.permutation(len(parts))]
    half = len(order) // 2
    return Subject("scenes", "a scene", order[:half], order[half:], [THING])


def numerals(rng: np.random.Generator) -> Subject:
    """Returns handwritten digits.

    Args:
        rng: Draws them.
    """
    taught, scored = digits.draw_pictures(rng, taught=_DIGITS, scored=_DIGITS)
    learned, unseen = ([picture for picture, _ in drawn] for drawn in (taught, scored))
    return Subject("digits", "a digit", learned, unseen, [Topic(digits.PICTURE, "")])
