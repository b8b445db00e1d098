"""Renderings of a flag: as if it were photographed waving in some wind, light and place.

A rendering is drawn by a seed alone. Taught and unseen renderings differ in seed and in strength:
those that a model has never seen are smaller, more turned, cut, dark and noisy.
"""

import io
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

SIDE = 112  # pixels of a rendering's side


@dataclass(frozen=True)
class Strength:
    """How far a rendering may be from the flag.

    Attributes:
        width: Smallest and largest width of the flag, as a fraction of the picture's side.
        shift: Largest distance from the middle, as a fraction of the side; it may cut the flag.
        turn: Largest angle, in degrees.
        wave: Largest height of the waves, as a fraction of the flag's height.
        light: Largest change of brightness, as a fraction, from light and from the folds.
        blur: Largest radius of the blur, in pixels.
        noise: Largest standard deviation of the noise, in units of 0 to 255.
    """

    width: tuple[float, float]
    shift: float
    turn: float
    wave: float
    light: float
    blur: float
    noise: float


TAUGHT = Strength((0.8, 1.0), shift=0.06, turn=5, wave=0.05, light=0.2, blur=0.4, noise=5)
UNSEEN = Strength((0.66, 0.9), shift=0.12, turn=9, wave=0.09, light=0.3, blur=0.8, noise=9)


def render(
    flag: Image.Image, name: str, number: int, *, seed: int, unseen: bool, side: int = SIDE
) -> bytes:
    """Renders a flag.

    Args:
        flag: The flag, of mode RGBA.
        name: What tells this flag's chance from that of others, e.g. its code.
        number: Number of the rendering, from 0.
        seed: Seed of all renderings.
        unseen: Whether it is one that is never taught (`UNSEEN`), or a taught one (`TAUGHT`).
        side: Height and width, in pixels.

    Returns:
        A JPEG; the same arguments give the same bytes.
    """
    strength = UNSEEN if unseen else TAUGHT
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), unseen, number])
    cloth, folds = _waved(flag, rng, strength, side)
    scene = _background(rng, side) * (1 - cloth[..., 3:]) + cloth[..., :3] * (1 + folds[..., None])
    light = 1 + _gradient(rng, side) * rng.uniform(0, strength.light)
    light += rng.uniform(-strength.light, strength.light) / 2
    photo = Image.fromarray(_bytes(scene * light))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, strength.blur)))
    grain = rng.normal(0, rng.uniform(0.4, 1) * strength.noise, (side, side, 3))
    buffer = io.BytesIO()
    noisy = Image.fromarray(_bytes(np.asarray(photo, np.float64) + grain))
    noisy.save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def _waved(
    flag: Image.Image, rng: np.random.Generator, strength: Strength, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the flag in its place, float [side, side, RGBA], and its folds' light [side, side].

    Colours (0 to 255) are premultiplied by the opacity (0 to 1), so that no dark rim appears. For
    each pixel of the picture, the place on the flag is computed that is seen there.
    """
    # A high flag (Nepal's, a square) must fit in as well.
    scale = rng.uniform(*strength.width) * side / max(flag.size)
    small = flag.resize(
        [max(2, round(scale * length)) for length in flag.size], Image.Resampling.LANCZOS
    )
    width, height = small.size
    middle = side / 2 + rng.uniform(-1, 1, 2) * strength.shift * side
    angle = np.deg2rad(rng.uniform(-1, 1) * strength.turn)
    y, x = np.mgrid[:side, :side] + 0.5 - middle[:, None, None]
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    phase = 2 * np.pi * (rng.uniform(0.8, 2) * x / width + rng.uniform(-0.3, 0.3) * y / height)
    phase += rng.uniform(0, 2 * np.pi)
    y += rng.uniform(0.3, 1) * strength.wave * height * np.sin(phase)
    places = y + height / 2 - 0.5, x + width / 2 - 0.5
    pixels = np.array(small, np.float64)
    pixels[..., 3] /= 255
    pixels[..., :3] *= pixels[..., 3:]
    seen = [ndimage.map_coordinates(pixels[..., c], places, order=1) for c in range(4)]
    return np.stack(seen, -1), rng.uniform(0.2, 0.8) * strength.light * np.cos(phase)


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns a muted colour that passes into another one, float [side, side, RGB]."""
    one, other = rng.uniform(70, 210, (2, 3)) * 0.4 + rng.uniform(70, 210, (2, 1)) * 0.6
    mix = (_gradient(rng, side) + 1) / 2
    return one * mix + other * (1 - mix)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns a plane through 0 in a random direction, from -1 to 1, [side, side, 1]."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return ((x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2))[..., None]


def _bytes(colours: np.ndarray) -> np.ndarray:
    return np.clip(colours.round(), 0, 255).astype(np.uint8)
