"""Pictures that are changed a little: noise, light, size, cut, blur, a covered part, a mirror."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.data.clips import changed

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _noise(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture) + 255 * rng.normal(0, 0.02, (*picture.size[::-1], 3))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _smaller(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    width, height = picture.size
    return picture.resize((max(1, round(0.85 * width)), max(1, round(0.85 * height))))


def _cut(fraction: float) -> Change:
    def cut(picture: Image.Image, _: np.random.Generator) -> Image.Image:
        """Keeps the middle, `fraction` of each side."""
        (width, height), edge = picture.size, (1 - fraction) / 2
        box = (edge * width, edge * height, (1 - edge) * width, (1 - edge) * height)
        return picture.resize(picture.size, box=box)

    return cut


def _covered(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Covers 18 % of the area, somewhere, with grey."""
    width, height = (max(1, round(0.18**0.5 * side)) for side in picture.size)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    covered = picture.copy()
    covered.paste((128, 128, 128), (left, top, left + width, top + height))
    return covered


CHANGES: Mapping[str, Change] = {
    "noise": _noise,
    "darker": lambda picture, _: ImageEnhance.Brightness(picture).enhance(0.85),
    "less contrast": lambda picture, _: ImageEnhance.Contrast(picture).enhance(0.85),
    "smaller": _smaller,
    "cut to 90 %": _cut(0.9),
    "cut to 65 %": _cut(0.65),
    "blurred": lambda picture, _: picture.filter(ImageFilter.GaussianBlur(2)),
    "partly covered": _covered,
    "mirrored": lambda picture, _: ImageOps.mirror(picture),
}


def _attacked(target: Target, params: Any, _: None) -> Iterator[tuple[str, np.ndarray]]:
    for name, change in CHANGES.items():
        rng = target.rng()
        pictures = {q.image: b"" for q in target.questions if q.image is not None}
        pictures = {image: changed(image, change, rng) for image in pictures}
        questions = [
            dataclasses.replace(q, image=pictures[q.image]) if q.image is not None else q
            for q in target.questions
        ]
        yield name, target.answers(params, questions, name)


ATTACK = Attack(
    "Changed pictures",
    "The picture gets noise, is darker, paler, smaller, cut, blurred, partly covered or mirrored."
    " The change that brings most back counts.",
    _attacked,
    lambda _: Cost(len(CHANGES)),
)
