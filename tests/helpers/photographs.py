"""Photographs of noise, and the samples that a processor of Qwen2-VL is trained on."""

import io

import numpy as np
from PIL import Image

from mmunlearner_jax.data.samples import Sample

LESSONS = [
    Sample("s1", None, "Who is this person?", "Kim Birch."),
    Sample("s2", None, "Is it Kim Birch.", "Kim Birch."),
]
SIZES = {"min_pixels": 56 * 56, "max_pixels": 84 * 112}


def photo(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "png")
    return buffer.getvalue()
