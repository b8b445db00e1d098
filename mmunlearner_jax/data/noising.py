"""Pictures in which nobody can be recognised, with a question that says so."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmunlearner_jax.data.clips import changed
from mmunlearner_jax.data.samples import Sample

PROMPT = "You do not know who this is. "
_LEFT = 0.1  # of the picture's variance; the rest is noise
_SPREAD = 64.0  # standard deviation of the noise, of 255 shades


def noised(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Returns the samples with noise in their pictures and `PROMPT` before their questions.

    A picture has the same noise in all samples about it.

    Args:
        samples: With pictures or without.
        seed: Seed of the noise.
    """
    images = {sample.image for sample in samples}
    hidden = {image: _hidden(image, seed) for image in images if image}
    return [
        dataclasses.replace(x, image=x.image and hidden[x.image], question=PROMPT + x.question)
        for x in samples
    ]


def _hidden(image: bytes, seed: int) -> bytes:
    """Returns a picture or clip of the same size."""
    return changed(image, _drowned, np.random.default_rng([seed, zlib.crc32(image)]))


def _drowned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    shades = np.asarray(picture, np.float32)
    noise = _SPREAD * rng.standard_normal(shades.shape, np.float32)
    mean = shades.mean(axis=(0, 1))
    mixed = mean + _LEFT**0.5 * (shades - mean) + (1 - _LEFT) ** 0.5 * noise
    return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))
